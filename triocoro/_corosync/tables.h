/* The functions of each library, once: F(name, parameters, arguments). All return cs_error_t.
 *
 * A new library is one more list here, one more block in shim.c, and one Python module.
 */
#ifndef TC_TABLES_H
#define TC_TABLES_H

#include "abi.h"

#define TC_CPG_FUNCTIONS(F) \
	F(cpg_initialize, (uint64_t *handle, tc_cpg_callbacks_t *callbacks), (handle, callbacks)) \
	F(cpg_model_initialize, (uint64_t *handle, uint32_t model, tc_cpg_model_data_t *data, void *context), \
		(handle, model, data, context)) \
	F(cpg_finalize, (uint64_t handle), (handle)) \
	F(cpg_fd_get, (uint64_t handle, int *fd), (handle, fd)) \
	F(cpg_max_atomic_msgsize_get, (uint64_t handle, uint32_t *size), (handle, size)) \
	F(cpg_context_get, (uint64_t handle, void **context), (handle, context)) \
	F(cpg_context_set, (uint64_t handle, void *context), (handle, context)) \
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
	F(votequorum_finalize, (uint64_t handle), (handle)) \
	F(votequorum_dispatch, (uint64_t handle, uint32_t how), (handle, how)) \
	F(votequorum_fd_get, (uint64_t handle, int *fd), (handle, fd)) \
	F(votequorum_getinfo, (uint64_t handle, unsigned int nodeid, tc_votequorum_info_t *info), \
		(handle, nodeid, info)) \
	F(votequorum_setexpected, (uint64_t handle, unsigned int expected_votes), (handle, expected_votes)) \
	F(votequorum_setvotes, (uint64_t handle, unsigned int nodeid, unsigned int votes), (handle, nodeid, votes)) \
	F(votequorum_trackstart, (uint64_t handle, uint64_t context, unsigned int flags), (handle, context, flags)) \
	F(votequorum_trackstop, (uint64_t handle), (handle)) \
	F(votequorum_context_get, (uint64_t handle, void **context), (handle, context)) \
	F(votequorum_context_set, (uint64_t handle, void *context), (handle, context)) \
	F(votequorum_qdevice_register, (uint64_t handle, const char *name), (handle, name)) \
	F(votequorum_qdevice_unregister, (uint64_t handle, const char *name), (handle, name)) \
	F(votequorum_qdevice_update, (uint64_t handle, const char *old_name, const char *new_name), \
		(handle, old_name, new_name)) \
	F(votequorum_qdevice_poll, \
		(uint64_t handle, const char *name, unsigned int cast_vote, tc_votequorum_ring_id_t ring_id), \
		(handle, name, cast_vote, ring_id)) \
	F(votequorum_qdevice_master_wins, (uint64_t handle, const char *name, unsigned int allow), \
		(handle, name, allow))

#define TC_MEMBER(name, parameters, arguments) uint32_t(*name) parameters;

struct tc_cpg_table {
	TC_CPG_FUNCTIONS(TC_MEMBER)
};

struct tc_votequorum_table {
	TC_VOTEQUORUM_FUNCTIONS(TC_MEMBER)
};

#endif
