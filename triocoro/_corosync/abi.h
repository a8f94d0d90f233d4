/* The part of Corosync's C ABI that the shim uses, declared anew, so that building needs none of Corosync's headers.
 *
 * Enumerations are uint32_t here, which is what compilers make of them. A test compiles these layouts, and the signatures
 * in tables.h, against the real headers, where these are installed. It defines TC_REAL_TYPES, and maps our names to
 * theirs.
 */
#ifndef TC_ABI_H
#define TC_ABI_H

#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

enum {
	TC_CS_OK = 1,
	TC_CS_LIBRARY = 2,
	TC_CS_TRY_AGAIN = 6,
	TC_CS_INVALID_PARAM = 7,
	TC_CS_NO_MEMORY = 8,
	TC_CS_BAD_HANDLE = 9,
	TC_CS_NOT_EXIST = 12,
	TC_CS_NO_SPACE = 15,
	TC_CS_NO_SECTIONS = 27,
};
enum { TC_DISPATCH_ONE_NONBLOCKING = 4 };
enum { TC_CPG_TYPE_AGREED = 2 };
enum { TC_CPG_MODEL_V1 = 1 };
enum { TC_VOTEQUORUM_MODEL_V1 = 1 };
enum { TC_VOTEQUORUM_HAS_EXTRA_INFO = 1024 };
enum { TC_QUORUM_MODEL_V1 = 1 };
enum { TC_CFG_NODE_STATUS_V1 = 1 };

/* --- libcpg --- */

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

#endif

typedef void (*tc_cpg_deliver_t)(uint64_t handle, const tc_cpg_name_t *group, uint32_t nodeid, uint32_t pid,
	void *message, size_t length);
typedef void (*tc_cpg_confchg_t)(uint64_t handle, const tc_cpg_name_t *group,
	const tc_cpg_address_t *members, size_t members_count, const tc_cpg_address_t *left, size_t left_count,
	const tc_cpg_address_t *joined, size_t joined_count);
typedef void (*tc_cpg_totem_confchg_t)(uint64_t handle, tc_cpg_ring_id_t ring_id, uint32_t members_count,
	const uint32_t *members);

#ifndef TC_REAL_TYPES

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

#endif

/* --- libvotequorum --- */

#ifndef TC_REAL_TYPES

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

typedef void (*tc_votequorum_quorum_t)(uint64_t handle, uint64_t context, uint32_t quorate, uint32_t count,
	tc_votequorum_node_t nodes[]);
typedef void (*tc_votequorum_nodelist_t)(uint64_t handle, uint64_t context, tc_votequorum_ring_id_t ring_id,
	uint32_t count, uint32_t nodes[]);
typedef void (*tc_votequorum_expectedvotes_t)(uint64_t handle, uint64_t context, uint32_t expected_votes);
typedef void (*tc_votequorum_extra_info_t)(uint64_t handle, uint64_t context, uint32_t nodeid, uint32_t length,
	void *extra_info);

#ifndef TC_REAL_TYPES

typedef struct {
	tc_votequorum_quorum_t quorum;
	tc_votequorum_expectedvotes_t expectedvotes;
	tc_votequorum_nodelist_t nodelist;
} tc_votequorum_callbacks_t;

typedef struct {
	uint32_t model;
	tc_votequorum_quorum_t quorum;
	tc_votequorum_expectedvotes_t expectedvotes;
	tc_votequorum_nodelist_t nodelist;
	tc_votequorum_extra_info_t extra_info;
} tc_votequorum_model_v1_data_t;

#endif

/* --- libquorum --- */

#ifndef TC_REAL_TYPES

typedef struct {
	uint32_t nodeid;
	uint64_t seq;
} tc_quorum_ring_id_t;

#endif

typedef void (*tc_quorum_quorum_t)(uint64_t handle, uint32_t quorate, tc_quorum_ring_id_t ring_id,
	uint32_t members_count, const uint32_t *members);
typedef void (*tc_quorum_nodelist_t)(uint64_t handle, tc_quorum_ring_id_t ring_id, uint32_t members_count,
	const uint32_t *members, uint32_t joined_count, const uint32_t *joined, uint32_t left_count,
	const uint32_t *left);

#ifndef TC_REAL_TYPES

typedef struct {
	uint32_t model;
} tc_quorum_model_data_t;

typedef struct {
	uint32_t model;
	tc_quorum_quorum_t quorum;
	tc_quorum_nodelist_t nodelist;
} tc_quorum_model_v1_data_t;

#endif

/* --- libcmap --- */

#ifndef TC_REAL_TYPES

typedef struct {
	uint32_t type;
	size_t len;
	const void *data;
} tc_cmap_notify_value_t;

#endif

typedef void (*tc_cmap_notify_t)(uint64_t handle, uint64_t track, int32_t event, const char *key,
	tc_cmap_notify_value_t new_value, tc_cmap_notify_value_t old_value, void *user_data);

/* --- libcfg --- */

typedef void (*tc_cfg_shutdown_t)(uint64_t handle, uint32_t flags);

#ifndef TC_REAL_TYPES

typedef struct {
	tc_cfg_shutdown_t shutdown;
} tc_cfg_callbacks_t;

typedef struct {
	int address_length;
	char address[28];
} tc_cfg_node_address_t;

typedef struct {
	uint8_t enabled;
	uint8_t connected;
	uint8_t dynconnected;
	unsigned int mtu;
	char src_ipaddr[256];
	char dst_ipaddr[256];
} tc_cfg_link_status_t;

typedef struct {
	uint32_t version;
	unsigned int nodeid;
	uint8_t reachable;
	uint8_t remote;
	uint8_t external;
	uint8_t onwire_min;
	uint8_t onwire_max;
	uint8_t onwire_ver;
	tc_cfg_link_status_t link_status[8];
} tc_cfg_node_status_t;

#endif
#endif
