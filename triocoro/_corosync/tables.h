/* All functions of the libraries that the shim uses, each listed once as F(name, parameters, arguments). They return a
 * cs_error_t. From these lists the preprocessor makes the table, the wrappers, and the names to look up.
 *
 * A new library needs a list here that TC_LIBRARIES names, its types in abi.h, a unit for its callbacks, a row in
 * libraries.c, its constant and functions in shim.cdef and _shim.pyi, and what docs/architecture.md lists in Python.
 */
#ifndef TC_TABLES_H
#define TC_TABLES_H

#include "abi.h"

#define TC_LIBRARIES(L) L(CPG) L(VOTEQUORUM) L(QUORUM) L(CMAP) L(CFG)

#define TC_CPG_FUNCTIONS(F) \
	F(cpg_model_initialize, (uint64_t *handle, uint32_t model, tc_cpg_model_data_t *data, void *context), \
		(handle, model, data, context)) \
	F(cpg_finalize, (uint64_t handle), (handle)) \
	F(cpg_fd_get, (uint64_t handle, int *fd), (handle, fd)) \
	F(cpg_max_atomic_msgsize_get, (uint64_t handle, uint32_t *size), (handle, size)) \
	F(cpg_dispatch, (uint64_t handle, uint32_t how), (handle, how)) \
	F(cpg_join, (uint64_t handle, const tc_cpg_name_t *group), (handle, group)) \
	F(cpg_leave, (uint64_t handle, const tc_cpg_name_t *group), (handle, group)) \
	F(cpg_mcast_joined, (uint64_t handle, uint32_t guarantee, const struct iovec *buffers, unsigned int count), \
		(handle, guarantee, buffers, count)) \
	F(cpg_membership_get, (uint64_t handle, tc_cpg_name_t *group, tc_cpg_address_t *members, int *count), \
		(handle, group, members, count)) \
	F(cpg_local_get, (uint64_t handle, unsigned int *nodeid), (handle, nodeid)) \
	F(cpg_flow_control_state_get, (uint64_t handle, uint32_t *state), (handle, state)) \
	F(cpg_zcb_alloc, (uint64_t handle, size_t size, void **buffer), (handle, size, buffer)) \
	F(cpg_zcb_free, (uint64_t handle, void *buffer), (handle, buffer)) \
	F(cpg_zcb_mcast_joined, (uint64_t handle, uint32_t guarantee, void *message, size_t length), \
		(handle, guarantee, message, length)) \
	F(cpg_iteration_initialize, \
		(uint64_t handle, uint32_t kind, const tc_cpg_name_t *group, uint64_t *iteration), \
		(handle, kind, group, iteration)) \
	F(cpg_iteration_next, (uint64_t iteration, tc_cpg_iteration_description_t *description), \
		(iteration, description)) \
	F(cpg_iteration_finalize, (uint64_t iteration), (iteration))

#define TC_VOTEQUORUM_FUNCTIONS(F) \
	F(votequorum_initialize, (uint64_t *handle, tc_votequorum_callbacks_t *callbacks), (handle, callbacks)) \
	F(votequorum_model_initialize, (uint64_t *handle, const tc_votequorum_model_v1_data_t *data), (handle, data)) \
	F(votequorum_finalize, (uint64_t handle), (handle)) \
	F(votequorum_dispatch, (uint64_t handle, uint32_t how), (handle, how)) \
	F(votequorum_fd_get, (uint64_t handle, int *fd), (handle, fd)) \
	F(votequorum_getinfo, (uint64_t handle, unsigned int nodeid, tc_votequorum_info_t *info), \
		(handle, nodeid, info)) \
	F(votequorum_setexpected, (uint64_t handle, unsigned int expected_votes), (handle, expected_votes)) \
	F(votequorum_setvotes, (uint64_t handle, unsigned int nodeid, unsigned int votes), (handle, nodeid, votes)) \
	F(votequorum_trackstart, (uint64_t handle, uint64_t context, unsigned int flags), (handle, context, flags)) \
	F(votequorum_trackstop, (uint64_t handle), (handle)) \
	F(votequorum_qdevice_register, (uint64_t handle, const char *name), (handle, name)) \
	F(votequorum_qdevice_unregister, (uint64_t handle, const char *name), (handle, name)) \
	F(votequorum_qdevice_update, (uint64_t handle, const char *old_name, const char *new_name), \
		(handle, old_name, new_name)) \
	F(votequorum_qdevice_poll, \
		(uint64_t handle, const char *name, unsigned int cast_vote, tc_votequorum_ring_id_t ring_id), \
		(handle, name, cast_vote, ring_id)) \
	F(votequorum_qdevice_master_wins, (uint64_t handle, const char *name, unsigned int allow), \
		(handle, name, allow)) \
	F(votequorum_get_qdevice_extra_info, \
		(uint64_t handle, unsigned int nodeid, uint32_t *length, void *extra_info), \
		(handle, nodeid, length, extra_info)) \
	F(votequorum_set_qdevice_extra_info, (uint64_t handle, uint32_t length, const void *extra_info), \
		(handle, length, extra_info))

#define TC_QUORUM_FUNCTIONS(F) \
	F(quorum_model_initialize, \
		(uint64_t *handle, uint32_t model, tc_quorum_model_data_t *data, uint32_t *type, void *context), \
		(handle, model, data, type, context)) \
	F(quorum_finalize, (uint64_t handle), (handle)) \
	F(quorum_fd_get, (uint64_t handle, int *fd), (handle, fd)) \
	F(quorum_dispatch, (uint64_t handle, uint32_t how), (handle, how)) \
	F(quorum_getquorate, (uint64_t handle, int *quorate), (handle, quorate)) \
	F(quorum_trackstart, (uint64_t handle, unsigned int flags), (handle, flags)) \
	F(quorum_trackstop, (uint64_t handle), (handle))

#define TC_CMAP_FUNCTIONS(F) \
	F(cmap_initialize_map, (uint64_t *handle, uint32_t map), (handle, map)) \
	F(cmap_finalize, (uint64_t handle), (handle)) \
	F(cmap_fd_get, (uint64_t handle, int *fd), (handle, fd)) \
	F(cmap_dispatch, (uint64_t handle, uint32_t how), (handle, how)) \
	F(cmap_set, (uint64_t handle, const char *key, const void *value, size_t length, uint32_t type), \
		(handle, key, value, length, type)) \
	F(cmap_get, (uint64_t handle, const char *key, void *value, size_t *length, uint32_t *type), \
		(handle, key, value, length, type)) \
	F(cmap_delete, (uint64_t handle, const char *key), (handle, key)) \
	F(cmap_inc, (uint64_t handle, const char *key), (handle, key)) \
	F(cmap_dec, (uint64_t handle, const char *key), (handle, key)) \
	F(cmap_iter_init, (uint64_t handle, const char *prefix, uint64_t *iteration), (handle, prefix, iteration)) \
	F(cmap_iter_next, (uint64_t handle, uint64_t iteration, char key[], size_t *length, uint32_t *type), \
		(handle, iteration, key, length, type)) \
	F(cmap_iter_finalize, (uint64_t handle, uint64_t iteration), (handle, iteration)) \
	F(cmap_track_add, \
		(uint64_t handle, const char *key, int32_t events, tc_cmap_notify_t notify, void *user_data, \
			uint64_t *track), \
		(handle, key, events, notify, user_data, track)) \
	F(cmap_track_delete, (uint64_t handle, uint64_t track), (handle, track))

#define TC_CFG_FUNCTIONS(F) \
	F(corosync_cfg_initialize, (uint64_t *handle, const tc_cfg_callbacks_t *callbacks), (handle, callbacks)) \
	F(corosync_cfg_finalize, (uint64_t handle), (handle)) \
	F(corosync_cfg_fd_get, (uint64_t handle, int *fd), (handle, fd)) \
	F(corosync_cfg_dispatch, (uint64_t handle, uint32_t how), (handle, how)) \
	F(corosync_cfg_local_get, (uint64_t handle, unsigned int *nodeid), (handle, nodeid)) \
	F(corosync_cfg_node_status_get, (uint64_t handle, unsigned int nodeid, uint32_t version, void *status), \
		(handle, nodeid, version, status)) \
	F(corosync_cfg_ring_status_get, \
		(uint64_t handle, char ***names, char ***status, unsigned int *count), (handle, names, status, count)) \
	F(corosync_cfg_get_node_addrs, \
		(uint64_t handle, unsigned int nodeid, size_t room, int *count, tc_cfg_node_address_t *addresses), \
		(handle, nodeid, room, count, addresses)) \
	F(corosync_cfg_reload_config, (uint64_t handle), (handle)) \
	F(corosync_cfg_reopen_log_files, (uint64_t handle), (handle)) \
	F(corosync_cfg_kill_node, (uint64_t handle, unsigned int nodeid, const char *reason), (handle, nodeid, reason)) \
	F(corosync_cfg_try_shutdown, (uint64_t handle, uint32_t flags), (handle, flags)) \
	F(corosync_cfg_trackstart, (uint64_t handle, uint8_t flags), (handle, flags)) \
	F(corosync_cfg_trackstop, (uint64_t handle), (handle)) \
	F(corosync_cfg_replyto_shutdown, (uint64_t handle, uint32_t reply), (handle, reply))

#define TC_MEMBER(name, parameters, arguments) uint32_t(*name) parameters;
#define TC_MEMBERS(NAME) TC_##NAME##_FUNCTIONS(TC_MEMBER)

/* What dlsym(3) has found; NULL while the library is not loaded, and where it is too old or too new to have a function. */
struct tc_functions {
	TC_LIBRARIES(TC_MEMBERS)
};

#endif
