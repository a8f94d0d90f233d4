/* libquorum: its callbacks. */
#include "shim.h"

static void tc_on_quorum(uint64_t handle, uint32_t quorate, tc_quorum_ring_id_t ring_id, uint32_t count,
	const uint32_t *members)
{
	(void)handle;
	tc_arena_add_ring(TC_QUORATE, quorate, ring_id.nodeid, ring_id.seq, members, count);
}

static void tc_on_nodelist(uint64_t handle, tc_quorum_ring_id_t ring_id, uint32_t members_count,
	const uint32_t *members, uint32_t joined_count, const uint32_t *joined, uint32_t left_count,
	const uint32_t *left)
{
	uint32_t counts[2] = {left_count, joined_count};
	char *bytes = tc_arena_add(tc_current, TC_MEMBERSHIP, members_count, ring_id.nodeid,
		sizeof ring_id.seq + sizeof counts +
			((uint64_t)members_count + left_count + joined_count) * sizeof *members);

	(void)handle;
	if (bytes != NULL) {
		bytes = tc_put(bytes, &ring_id.seq, sizeof ring_id.seq);
		bytes = tc_put(bytes, counts, sizeof counts);
		bytes = tc_put(bytes, members, members_count * sizeof *members);
		bytes = tc_put(bytes, left, left_count * sizeof *left);
		(void)tc_put(bytes, joined, joined_count * sizeof *joined);
	}
}

void tc_open_quorum(void *argument)
{
	struct tc_connection *out = argument;
	tc_quorum_model_v1_data_t data = {
		.model = TC_QUORUM_MODEL_V1, .quorum = tc_on_quorum, .nodelist = tc_on_nodelist};

	out->function = "quorum_model_initialize";
	out->code = quorum_model_initialize(
		&out->handle, TC_QUORUM_MODEL_V1, (tc_quorum_model_data_t *)&data, &out->quorum_type, NULL);
}
