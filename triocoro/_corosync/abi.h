/* The part of Corosync's C ABI that the shim uses, in our own words: building needs no Corosync headers.
 *
 * Enumerations are uint32_t here, as the compilers make them. tests/test_corosync_raw.py compiles these layouts and
 * the signatures of tables.h against the real headers (with TC_REAL_TYPES, which maps our names to theirs).
 */
#ifndef TC_ABI_H
#define TC_ABI_H

#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

enum { TC_CS_OK = 1, TC_CS_LIBRARY = 2, TC_CS_TRY_AGAIN = 6, TC_CS_NO_MEMORY = 8, TC_CS_NO_SECTIONS = 27 };
enum { TC_DISPATCH_ONE_NONBLOCKING = 4 };
enum { TC_CPG_TYPE_AGREED = 2 };
enum { TC_CPG_MODEL_V1 = 1 };

#ifndef TC_REAL_TYPES

typedef struct {
	uint32_t nodeid;
	uint32_t pid;
	uint32_t reason;
} tc_cpg_address_t;

typedef struct {
	uint32_t length;
	char value[128];
} tc_cpg_name_t;

typedef struct {
	tc_cpg_name_t group;
	uint32_t nodeid;
	uint32_t pid;
} tc_cpg_iteration_description_t;

typedef struct {
	uint32_t nodeid;
	uint64_t seq;
} tc_cpg_ring_id_t;

typedef struct {
	unsigned int node_id;
	unsigned int node_state;
	unsigned int node_votes;
	unsigned int node_expected_votes;
	unsigned int highest_expected;
	unsigned int total_votes;
	unsigned int quorum;
	unsigned int flags;
	unsigned int qdevice_votes;
	char qdevice_name[255];
} tc_votequorum_info_t;

typedef struct {
	uint32_t nodeid;
	uint32_t state;
} tc_votequorum_node_t;

typedef struct {
	uint32_t nodeid;
	uint64_t seq;
} tc_votequorum_ring_id_t;

#endif

typedef void (*tc_cpg_deliver_t)(uint64_t handle, const tc_cpg_name_t *group, uint32_t nodeid, uint32_t pid,
	void *message, size_t length);
typedef void (*tc_cpg_confchg_t)(uint64_t handle, const tc_cpg_name_t *group,
	const tc_cpg_address_t *members, size_t members_count, const tc_cpg_address_t *left, size_t left_count,
	const tc_cpg_address_t *joined, size_t joined_count);
typedef void (*tc_cpg_totem_confchg_t)(uint64_t handle, tc_cpg_ring_id_t ring_id, uint32_t members_count,
	const uint32_t *members);

typedef void (*tc_votequorum_quorum_t)(uint64_t handle, uint64_t context, uint32_t quorate, uint32_t count,
	tc_votequorum_node_t nodes[]);
typedef void (*tc_votequorum_nodelist_t)(uint64_t handle, uint64_t context, tc_votequorum_ring_id_t ring_id,
	uint32_t count, uint32_t nodes[]);
typedef void (*tc_votequorum_expectedvotes_t)(uint64_t handle, uint64_t context, uint32_t expected_votes);

#ifndef TC_REAL_TYPES

typedef struct {
	tc_cpg_deliver_t deliver;
	tc_cpg_confchg_t confchg;
} tc_cpg_callbacks_t;

typedef struct {
	uint32_t model;
} tc_cpg_model_data_t;

typedef struct {
	uint32_t model;
	tc_cpg_deliver_t deliver;
	tc_cpg_confchg_t confchg;
	tc_cpg_totem_confchg_t totem_confchg;
	unsigned int flags;
} tc_cpg_model_v1_data_t;

typedef struct {
	tc_votequorum_quorum_t quorum;
	tc_votequorum_expectedvotes_t expectedvotes;
	tc_votequorum_nodelist_t nodelist;
} tc_votequorum_callbacks_t;

#endif
#endif
