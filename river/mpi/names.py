"""The 129 procedures of MPI-1.3 as one table: C's name, C's arguments in C's order, and what it is in Python.

    Comm_rank(comm, &rank) = comm.Get_rank()        what comes of it is put in the box, or list, `rank`
    Wtime() -> MPI.Wtime()                          what comes of it is returned

An argument with a question mark may be left out.  What stands on the right may use the arguments (of a box, what is in
it), MPI, and the words of `classic` and `lists`: give(buf, count, datatype) is a buffer that is read, into(...) one
that is written to, both(...) one that is read and written to.

May not: do anything itself.
"""

from __future__ import annotations

import re
from typing import NamedTuple

# By the chapters of the standard; how many there are of each is tested.
POINT_TO_POINT = """
Send(buf, count, datatype, dest, tag, comm) = comm.Send(give(buf, count, datatype), dest, tag)
Recv(buf, count, datatype, source, tag, comm, status) = comm.Recv(into(buf, count, datatype), source, tag, status)
Bsend(buf, count, datatype, dest, tag, comm) = comm.Bsend(give(buf, count, datatype), dest, tag)
Ssend(buf, count, datatype, dest, tag, comm) = comm.Ssend(give(buf, count, datatype), dest, tag)
Rsend(buf, count, datatype, dest, tag, comm) = comm.Rsend(give(buf, count, datatype), dest, tag)
Sendrecv(sendbuf, sendcount, sendtype, dest, sendtag, recvbuf, recvcount, recvtype, source, recvtag, comm, status) =
    comm.Sendrecv(give(sendbuf, sendcount, sendtype), dest, sendtag,
                  into(recvbuf, recvcount, recvtype), source, recvtag, status)
Sendrecv_replace(buf, count, datatype, dest, sendtag, source, recvtag, comm, status) =
    comm.Sendrecv_replace(both(buf, count, datatype), dest, sendtag, source, recvtag, status)
Get_count(status, datatype, &count) = status.Get_count(datatype)
Buffer_attach(buffer, size) = attach(buffer, size)
Buffer_detach(&buffer, &size) = detach()
"""
NONBLOCKING = """
Isend(buf, count, datatype, dest, tag, comm, &request) = comm.Isend(give(buf, count, datatype), dest, tag)
Ibsend(buf, count, datatype, dest, tag, comm, &request) = comm.Ibsend(give(buf, count, datatype), dest, tag)
Issend(buf, count, datatype, dest, tag, comm, &request) = comm.Issend(give(buf, count, datatype), dest, tag)
Irsend(buf, count, datatype, dest, tag, comm, &request) = comm.Irsend(give(buf, count, datatype), dest, tag)
Irecv(buf, count, datatype, source, tag, comm, &request) = comm.Irecv(into(buf, count, datatype), source, tag)
"""
COMPLETION = """
Wait(request, status) = wait(request, status)
Test(request, &flag, status) = test(request, status)
Waitany(count, requests, &index, status) = waitany(requests[:count], status)
Testany(count, requests, &index, &flag, status) = testany(requests[:count], status)
Waitall(count, requests, statuses) = waitall(requests[:count], statuses)
Testall(count, requests, &flag, statuses) = testall(requests[:count], statuses)
Waitsome(incount, requests, &outcount, &indices, statuses) = waitsome(requests[:incount], statuses)
Testsome(incount, requests, &outcount, &indices, statuses) = testsome(requests[:incount], statuses)
Request_free(request) = request.Free()
Cancel(request) = request.Cancel()
Test_cancelled(status, &flag) = status.Is_cancelled()
"""
PROBE = """
Iprobe(source, tag, comm, &flag, status) = comm.Iprobe(source, tag, status)
Probe(source, tag, comm, status) = comm.Probe(source, tag, status)
"""
PERSISTENT = """
Send_init(buf, count, datatype, dest, tag, comm, &request) = comm.Send_init(give(buf, count, datatype), dest, tag)
Bsend_init(buf, count, datatype, dest, tag, comm, &request) = comm.Bsend_init(give(buf, count, datatype), dest, tag)
Ssend_init(buf, count, datatype, dest, tag, comm, &request) = comm.Ssend_init(give(buf, count, datatype), dest, tag)
Rsend_init(buf, count, datatype, dest, tag, comm, &request) = comm.Rsend_init(give(buf, count, datatype), dest, tag)
Recv_init(buf, count, datatype, source, tag, comm, &request) = comm.Recv_init(into(buf, count, datatype), source, tag)
Start(request) = start([request])
Startall(count, requests) = start(requests[:count])
"""
DATATYPES = """
Type_contiguous(count, oldtype, &newtype) = oldtype.Create_contiguous(count)
Type_vector(count, blocklength, stride, oldtype, &newtype) = oldtype.Create_vector(count, blocklength, stride)
Type_hvector(count, blocklength, stride, oldtype, &newtype) = oldtype.Create_hvector(count, blocklength, stride)
Type_indexed(count, blocklengths, displacements, oldtype, &newtype) =
    oldtype.Create_indexed(blocklengths[:count], displacements[:count])
Type_hindexed(count, blocklengths, displacements, oldtype, &newtype) =
    oldtype.Create_hindexed(blocklengths[:count], displacements[:count])
Type_struct(count, blocklengths, displacements, types, &newtype) =
    struct(blocklengths[:count], displacements[:count], types[:count])
Address(location, &address) = MPI.Get_address(location)
Type_extent(datatype, &extent) = datatype.extent
Type_size(datatype, &size) = datatype.Get_size()
Type_lb(datatype, &displacement) = datatype.lb
Type_ub(datatype, &displacement) = datatype.ub
Type_commit(datatype) = datatype.Commit()
Type_free(datatype) = datatype.Free()
Get_elements(status, datatype, &count) = status.Get_elements(datatype)
"""
PACKING = """
Pack(inbuf, incount, datatype, outbuf, outsize, &position, comm) =
    pack(give(inbuf, incount, datatype), both(outbuf, outsize, MPI.BYTE), position, comm)
Unpack(inbuf, insize, &position, outbuf, outcount, datatype, comm) =
    unpack(give(inbuf, insize, MPI.BYTE), position, into(outbuf, outcount, datatype), comm)
Pack_size(incount, datatype, comm, &size) = datatype.Pack_size(incount, comm)
"""
COLLECTIVES = """
Barrier(comm) = comm.Barrier()
Bcast(buffer, count, datatype, root, comm) =
    comm.Bcast((give if is_root(comm, root) else into)(buffer, count, datatype), root)
Gather(sendbuf, sendcount, sendtype, recvbuf, recvcount, recvtype, root, comm) =
    comm.Gather(give(sendbuf, sendcount, sendtype),
                into(recvbuf, recvcount, recvtype, of(comm)) if is_root(comm, root) else None, root)
Gatherv(sendbuf, sendcount, sendtype, recvbuf, recvcounts, displs, recvtype, root, comm) =
    comm.Gatherv(give(sendbuf, sendcount, sendtype),
                 into(recvbuf, recvcounts, recvtype, displs) if is_root(comm, root) else None, root)
Scatter(sendbuf, sendcount, sendtype, recvbuf, recvcount, recvtype, root, comm) =
    comm.Scatter(give(sendbuf, sendcount, sendtype, of(comm)) if is_root(comm, root) else None,
                 into(recvbuf, recvcount, recvtype), root)
Scatterv(sendbuf, sendcounts, displs, sendtype, recvbuf, recvcount, recvtype, root, comm) =
    comm.Scatterv(give(sendbuf, sendcounts, sendtype, displs) if is_root(comm, root) else None,
                  into(recvbuf, recvcount, recvtype), root)
Allgather(sendbuf, sendcount, sendtype, recvbuf, recvcount, recvtype, comm) =
    comm.Allgather(give(sendbuf, sendcount, sendtype), into(recvbuf, recvcount, recvtype, of(comm)))
Allgatherv(sendbuf, sendcount, sendtype, recvbuf, recvcounts, displs, recvtype, comm) =
    comm.Allgatherv(give(sendbuf, sendcount, sendtype), into(recvbuf, recvcounts, recvtype, displs))
Alltoall(sendbuf, sendcount, sendtype, recvbuf, recvcount, recvtype, comm) =
    comm.Alltoall(give(sendbuf, sendcount, sendtype, of(comm)), into(recvbuf, recvcount, recvtype, of(comm)))
Alltoallv(sendbuf, sendcounts, sdispls, sendtype, recvbuf, recvcounts, rdispls, recvtype, comm) =
    comm.Alltoallv(give(sendbuf, sendcounts, sendtype, sdispls), into(recvbuf, recvcounts, recvtype, rdispls))
Reduce(sendbuf, recvbuf, count, datatype, op, root, comm) =
    comm.Reduce(give(sendbuf, count, datatype),
                into(recvbuf, count, datatype) if is_root(comm, root) else None, op, root)
Allreduce(sendbuf, recvbuf, count, datatype, op, comm) =
    comm.Allreduce(give(sendbuf, count, datatype), into(recvbuf, count, datatype), op)
Reduce_scatter(sendbuf, recvbuf, recvcounts, datatype, op, comm) =
    comm.Reduce_scatter(give(sendbuf, sum(recvcounts), datatype),
                        into(recvbuf, recvcounts[comm.Get_rank()], datatype), recvcounts, op)
Scan(sendbuf, recvbuf, count, datatype, op, comm) =
    comm.Scan(give(sendbuf, count, datatype), into(recvbuf, count, datatype), op)
"""
OPERATIONS = """
Op_create(function, commute, &op) = operation(function, commute)
Op_free(op) = op.Free()
"""
GROUPS = """
Group_size(group, &size) = group.Get_size()
Group_rank(group, &rank) = group.Get_rank()
Group_translate_ranks(group1, n, ranks1, group2, &ranks2) = group1.Translate_ranks(ranks1[:n], group2)
Group_compare(group1, group2, &result) = group1.Compare(group2)
Comm_group(comm, &group) = comm.Get_group()
Group_union(group1, group2, &newgroup) = MPI.Group.Union(group1, group2)
Group_intersection(group1, group2, &newgroup) = MPI.Group.Intersection(group1, group2)
Group_difference(group1, group2, &newgroup) = MPI.Group.Difference(group1, group2)
Group_incl(group, n, ranks, &newgroup) = group.Incl(ranks[:n])
Group_excl(group, n, ranks, &newgroup) = group.Excl(ranks[:n])
Group_range_incl(group, n, ranges, &newgroup) = group.Range_incl(ranges[:n])
Group_range_excl(group, n, ranges, &newgroup) = group.Range_excl(ranges[:n])
Group_free(group) = group.Free()
"""
COMMUNICATORS = """
Comm_size(comm, &size) = comm.Get_size()
Comm_rank(comm, &rank) = comm.Get_rank()
Comm_compare(comm1, comm2, &result) = MPI.Comm.Compare(comm1, comm2)
Comm_dup(comm, &newcomm) = comm.Dup()
Comm_create(comm, group, &newcomm) = comm.Create(group)
Comm_split(comm, color, key, &newcomm) = comm.Split(color, key)
Comm_free(comm) = comm.Free()
"""
INTERCOMMUNICATORS = """
Comm_test_inter(comm, &flag) = comm.Is_inter()
Comm_remote_size(comm, &size) = comm.Get_remote_size()
Comm_remote_group(comm, &group) = comm.Get_remote_group()
Intercomm_create(local_comm, local_leader, peer_comm, remote_leader, tag, &newintercomm) =
    local_comm.Create_intercomm(local_leader, peer_comm, remote_leader, tag)
Intercomm_merge(intercomm, high, &newintracomm) = intercomm.Merge(bool(high))
"""
ATTRIBUTES = """
Keyval_create(copy_fn, delete_fn, &keyval, extra_state) = keyval_of(copy_fn, delete_fn, extra_state)
Keyval_free(&keyval) = MPI.Comm.Free_keyval(keyval)
Attr_put(comm, keyval, attribute_val) = comm.Set_attr(keyval, attribute_val)
Attr_get(comm, keyval, &attribute_val, &flag) = attribute(comm, keyval)
Attr_delete(comm, keyval) = comm.Delete_attr(keyval)
"""
TOPOLOGIES = """
Cart_create(comm_old, ndims, dims, periods, reorder, &comm_cart) =
    comm_old.Create_cart(dims[:ndims], periods[:ndims], bool(reorder))
Dims_create(nnodes, ndims, &dims) = MPI.Compute_dims(nnodes, dims[:ndims])
Graph_create(comm_old, nnodes, index, edges, reorder, &comm_graph) =
    comm_old.Create_graph(index[:nnodes], edges[:index[nnodes - 1]], bool(reorder))
Topo_test(comm, &status) = comm.Get_topology()
Graphdims_get(comm, &nnodes, &nedges) = comm.Get_dims()
Graph_get(comm, maxindex, maxedges, &index, &edges) = (comm.index[:maxindex], comm.edges[:maxedges])
Cartdim_get(comm, &ndims) = comm.Get_dim()
Cart_get(comm, maxdims, &dims, &periods, &coords) = [list(each)[:maxdims] for each in comm.Get_topo()]
Cart_rank(comm, coords, &rank) = comm.Get_cart_rank(coords)
Cart_coords(comm, rank, maxdims, &coords) = comm.Get_coords(rank)[:maxdims]
Graph_neighbors_count(comm, rank, &nneighbors) = comm.Get_neighbors_count(rank)
Graph_neighbors(comm, rank, maxneighbors, &neighbors) = comm.Get_neighbors(rank)[:maxneighbors]
Cart_shift(comm, direction, disp, &rank_source, &rank_dest) = comm.Shift(direction, disp)
Cart_sub(comm, remain_dims, &newcomm) = comm.Sub(remain_dims)
Cart_map(comm, ndims, dims, periods, &newrank) = comm.Cart_map(dims[:ndims], periods[:ndims])
Graph_map(comm, nnodes, index, edges, &newrank) = comm.Graph_map(index[:nnodes], edges)
"""
ENVIRONMENT = """
Get_version(&version, &subversion) = MPI.Get_version()
Get_processor_name(&name, &resultlen) = measured(MPI.Get_processor_name())
Errhandler_create(function, &errhandler) = MPI.Comm.Create_errhandler(function)
Errhandler_set(comm, errhandler) = set_errhandler(comm, errhandler)
Errhandler_get(comm, &errhandler) = get_errhandler(comm)
Errhandler_free(errhandler) = errhandler.Free()
Error_string(errorcode, &string, &resultlen) = measured(MPI.Get_error_string(errorcode))
Error_class(errorcode, &errorclass) = MPI.Get_error_class(errorcode)
Wtime() -> MPI.Wtime()
Wtick() -> MPI.Wtick()
Init(argc?, argv?) = MPI.Is_initialized() or MPI.Init()
Initialized(&flag) = MPI.Is_initialized()
Finalize() = MPI.Finalize()
Abort(comm, errorcode) = comm.Abort(errorcode)
"""
PROFILING = """
Pcontrol(level, arguments?) = MPI.Pcontrol(level)
"""
_CHAPTERS = (
    *(POINT_TO_POINT, NONBLOCKING, COMPLETION, PROBE, PERSISTENT, DATATYPES, PACKING, COLLECTIVES, OPERATIONS, GROUPS),
    *(COMMUNICATORS, INTERCOMMUNICATORS, ATTRIBUTES, TOPOLOGIES, ENVIRONMENT, PROFILING),
)


class Row(NamedTuple):
    """A procedure.  results: those of the arguments that results are put in; optional: how many may be left out."""

    name: str
    arguments: tuple[str, ...]
    results: tuple[int, ...]
    optional: int
    returns: bool
    expression: str

    @property
    def signature(self) -> str:
        """As C has it, but for the types."""
        return f"MPI_{self.name}({', '.join(self.arguments)})"


def rows() -> list[Row]:
    """The table."""
    return [_row(*found) for found in _ROW.findall("".join(_CHAPTERS))]


# An expression goes on in lines that are indented.
_ROW = re.compile(r"^(\w+)\((.*)\) (=|->)((?:.*\n)(?: +.*\n)*)", re.MULTILINE)


def _row(name: str, arguments: str, sign: str, expression: str) -> Row:
    words = arguments.split(", ") if arguments else []
    results = tuple(number for number, word in enumerate(words) if word.startswith("&"))
    optional = sum(word.endswith("?") for word in words)
    return Row(name, tuple(word.strip("&?") for word in words), results, optional, sign == "->", expression.strip())
