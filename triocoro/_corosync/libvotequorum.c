/* libvotequorum: its callbacks, and the calls that guard against the library's overruns. */
#include "shim.h"

#include <string.h>

static void tc_on_votequorum(uint64_t handle, uint64_t context, uint32_t quorate, uint32_t count,
	tc_votequorum_node_t nodes[])
{
	uint64_t length = (uint64_t)count * sizeof *nodes;
	char *bytes = tc_arena_add(tc_current, TC_QUORUM, quorate, 0, length);

	(void)handle;
	(void)context;
	if (bytes != NULL) {
		(void)tc_put(bytes, nodes, length);
	}
}

static void tc_on_votequorum_nodelist(uint64_t handle, uint64_t context, tc_votequorum_ring_id_t ring_id,
	uint32_t count, uint32_t nodes[])
{
	(void)handle;
	(void)context;
	tc_arena_add_ring(TC_NODELIST, count, ring_id.nodeid, ring_id.seq, nodes, count);
}

static void tc_on_expectedvotes(uint64_t handle, uint64_t context, uint32_t expected_votes)
{
	(void)handle;
	(void)context;
	(void)tc_arena_add(tc_current, TC_EXPECTED, expected_votes, 0, 0);
}

static void tc_on_extra_info(uint64_t handle, uint64_t context, uint32_t nodeid, uint32_t length, void *extra_info)
{
	char *bytes = tc_arena_add(tc_current, TC_EXTRA_INFO, nodeid, 0, length);

	(void)handle;
	(void)context;
	if (bytes != NULL) {
		(void)tc_put(bytes, extra_info, length);
	}
}

/* A caller who needs extra information of quorum devices sets flags; only newer libraries offer it. */
void tc_open_votequorum(void *argument)
{
	struct tc_connection *out = argument;
	tc_votequorum_callbacks_t callbacks = {.quorum = tc_on_votequorum,
		.expectedvotes = tc_on_expectedvotes, .nodelist = tc_on_votequorum_nodelist};
	tc_votequorum_model_v1_data_t data = {.model = TC_VOTEQUORUM_MODEL_V1, .quorum = tc_on_votequorum,
		.expectedvotes = tc_on_expectedvotes, .nodelist = tc_on_votequorum_nodelist,
		.extra_info = tc_on_extra_info};

	if (out->flags != 0 || tc_table.votequorum_model_initialize != NULL) {
		out->function = "votequorum_model_initialize";
		out->code = votequorum_model_initialize(&out->handle, &data);
	} else {
		out->function = "votequorum_initialize";
		out->code = votequorum_initialize(&out->handle, &callbacks);
	}
}

/* The library copies the device's name without a bound, and for an unknown node from memory that the daemon left unset. */
int tc_votequorum_getinfo(uint64_t handle, uint32_t nodeid, tc_votequorum_info_t *out)
{
	struct {
		tc_votequorum_info_t info;
		char spare[1024];
	} roomy;
	int code;

	memset(&roomy, 0, sizeof roomy);
	code = votequorum_getinfo(handle, nodeid, &roomy.info);
	roomy.info.qdevice_name[sizeof roomy.info.qdevice_name - 1] = 0;
	*out = roomy.info;
	return code;
}

/* The extra information of a node; 0 stands for our own, as in votequorum_getinfo.
 *
 * When the daemon refuses, it leaves the length in its reply unset, and the library copies that many bytes all the same.
 * So two other calls find out first whether it would refuse: votequorum_getinfo, since a node without extra information
 * lacks a flag; and votequorum_qdevice_master_wins, which gets CS_ERR_ACCESS whenever a call about the device would. That
 * call has no effect, as no device has such a name.
 */
int tc_votequorum_get_extra_info(uint64_t handle, uint32_t nodeid, uint32_t *length, void *extra_info)
{
	tc_votequorum_info_t info;
	int code;

	*length = 0;
	if (tc_table.votequorum_get_qdevice_extra_info == NULL) {
		return TC_MISSING;
	}
	code = tc_votequorum_getinfo(handle, nodeid, &info);
	if (code != TC_CS_OK) {
		return code;
	}
	code = votequorum_qdevice_master_wins(handle, "\001", 0);
	if (code != TC_CS_NOT_EXIST && code != TC_CS_INVALID_PARAM) {
		return code;
	}
	if ((info.flags & TC_VOTEQUORUM_HAS_EXTRA_INFO) == 0) {
		return TC_CS_OK;
	}
	return votequorum_get_qdevice_extra_info(handle, info.node_id, length, extra_info);
}
