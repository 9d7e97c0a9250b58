"""All procedures of MPI-1.3 in one program, as of 2006, each called where its answer is known.

It is run as 4 ranks by test_mpi_classic, and prints what it has not called.
"""

from array import array

from mpi import *  # noqa: F403

# ruff: noqa: F405

W = MPI_COMM_WORLD


class Tour(mpi):
    called = set()

    def __getattribute__(self, name):
        if name.startswith("MPI_"):
            Tour.called.add(name)
        return super().__getattribute__(name)

    def main(self):
        self.MPI_Init(None, None)
        flag, rank, size = mpi_Flag(), mpi_Rank(), mpi_Size()
        self.MPI_Initialized(flag)
        self.MPI_Comm_rank(W, rank)
        self.MPI_Comm_size(W, size)
        assert flag.value and size.value == 4
        self.r, self.n = rank.value, size.value
        self.right, self.left = (self.r + 1) % self.n, (self.r - 1) % self.n
        for chapter in (
            *(self.point_to_point, self.modes, self.completion, self.lists_that_are_filled_later, self.persistent),
            *(self.datatypes, self.packing, self.collectives, self.vectors, self.reductions, self.groups),
            *(self.communicators, self.intercommunicators, self.attributes, self.cartesian, self.graphs),
            *(self.environment, self.errors),
        ):
            chapter()
            self.MPI_Barrier(W)
        known = {name for name in dir(mpi) if name.startswith("MPI_")}
        called = W.reduce(Tour.called | {"MPI_Finalize"}, op=set.union)
        self.MPI_Finalize()
        if self.r == 0:
            print("not called:", *sorted(known - called))

    def int_of(self, procedure, *arguments):
        box = mpi_Int()
        assert procedure(*arguments, box) == MPI_SUCCESS
        return box.value

    def point_to_point(self):
        status, got = MPI_Status(), [0] * 3
        self.MPI_Sendrecv([self.r] * 3, 3, MPI_INT, self.right, 1, got, 3, MPI_INT, self.left, 1, W, status)
        assert got == [self.left] * 3 and (status.MPI_SOURCE, status.MPI_TAG) == (self.left, 1)
        assert self.int_of(self.MPI_Get_count, status, MPI_INT) == 3
        assert self.int_of(self.MPI_Get_elements, status, MPI_INT) == 3
        mine = [float(self.r), 0.1]
        self.MPI_Sendrecv_replace(mine, 1, MPI_FLOAT, self.right, 2, self.left, 2, W, None)
        assert mine == [float(self.left), 0.1]  # what was not received into is as it was
        if self.r == 0:
            self.MPI_Send("hello", 6, MPI_CHAR, 1, 3, W)
            self.MPI_Send(array("d", [1.5, 2.5]), 2, MPI_DOUBLE, 1, 4, W)
        elif self.r == 1:
            text, numbers = [""] * 9, bytearray(16)
            self.MPI_Recv(text, 9, MPI_CHAR, 0, 3, W, status)
            assert text == [*"hello\0", "", "", ""]
            self.MPI_Recv(numbers, 2, MPI_DOUBLE, MPI_ANY_SOURCE, MPI_ANY_TAG, W, MPI_STATUS_IGNORE)
            assert memoryview(numbers).cast("d").tolist() == [1.5, 2.5]

    def modes(self):
        self.MPI_Buffer_attach([0] * 4096, 4096)
        flag, status = mpi_Flag(), MPI_Status()
        for send in (self.MPI_Send, self.MPI_Bsend, self.MPI_Ssend, self.MPI_Rsend):
            if self.r % 2 == 0:
                send([self.r], 1, MPI_LONG, self.r + 1, 3, W)
            else:
                got = [None]
                self.MPI_Probe(self.left, 3, W, status)
                self.MPI_Iprobe(MPI_ANY_SOURCE, 3, W, flag, status)
                assert flag.value and status.MPI_SOURCE == self.left
                self.MPI_Recv(got, 1, MPI_LONG, self.left, 3, W, status)
                assert got == [self.left]
        buffer, size = mpi_Value(), mpi_Int()
        self.MPI_Buffer_detach(buffer, size)
        assert len(buffer.value) == size.value == 4096

    def completion(self):
        self.MPI_Buffer_attach(bytearray(4096), 4096)
        starts = [self.MPI_Isend, self.MPI_Ibsend, self.MPI_Issend, self.MPI_Irsend] * 2
        for start, complete in zip(starts, self.ways_to_complete(), strict=True):
            got, requests = [None], [MPI_Request(), MPI_Request()]
            self.MPI_Irecv(got, 1, MPI_INT, self.left, 5, W, requests[0])
            start([self.r], 1, MPI_INT, self.right, 5, W, requests[1])
            complete(requests)
            assert got == [self.left] and [box.value == MPI_REQUEST_NULL for box in requests] == [True, True]
        self.MPI_Buffer_detach([None], [None])
        status, flag, request, got = MPI_Status(), mpi_Flag(), MPI_Request(), [None]
        self.MPI_Irecv([0], 1, MPI_INT, self.left, 99, W, request)
        self.MPI_Cancel(request)
        self.MPI_Wait(request, status)
        self.MPI_Test_cancelled(status, flag)
        assert flag.value
        self.MPI_Isend([7], 1, MPI_INT, self.r, 6, W, request)
        self.MPI_Request_free(request)
        self.MPI_Recv(got, 1, MPI_INT, self.r, 6, W, status)
        assert got == [7]

    def ways_to_complete(self):
        index, flag, status, statuses = mpi_Int(), mpi_Flag(), MPI_Status(), [MPI_Status(), MPI_Status()]
        many, indices = mpi_Int(), [0, 0]

        def until(procedure, *arguments):
            flag.value = False
            while not flag.value:
                procedure(*arguments)

        def some(procedure, requests):
            done = 0
            while done < 2:
                procedure(2, requests, many, indices, statuses)
                done += many.value
                assert all(requests[index].value == MPI_REQUEST_NULL for index in indices[: many.value])

        def any_(procedure, requests, *flags):
            found = set()
            while len(found) < 2:
                procedure(2, requests, index, *flags, status)
                if index.value != MPI_UNDEFINED:
                    found.add(index.value)

        return [
            lambda requests: [self.MPI_Wait(request, status) for request in requests],
            lambda requests: [until(self.MPI_Test, request, flag, status) for request in requests],
            lambda requests: self.MPI_Waitall(2, requests, statuses),
            lambda requests: until(self.MPI_Testall, 2, requests, flag, MPI_STATUSES_IGNORE),
            lambda requests: any_(self.MPI_Waitany, requests),
            lambda requests: any_(self.MPI_Testany, requests, flag),
            lambda requests: some(self.MPI_Waitsome, requests),
            lambda requests: some(self.MPI_Testsome, requests),
        ]

    def lists_that_are_filled_later(self):
        got, requests = [0] * 4, [MPI_Request() for _ in range(self.n)]
        for source in range(self.n):  # of one list, each has a place
            part = MPI_Datatype()
            self.MPI_Type_indexed(1, [1], [source], MPI_INT, part)
            self.MPI_Type_commit(part)
            self.MPI_Irecv(got, 1, part, source, 8, W, requests[source])
        for dest in range(self.n):
            self.MPI_Send([10 * self.r + dest], 1, MPI_INT, dest, 8, W)
        self.MPI_Waitall(self.n, requests, MPI_STATUSES_IGNORE)
        assert got == [10 * source + self.r for source in range(self.n)]

    def persistent(self):
        self.MPI_Buffer_attach([0] * 4096, 4096)
        for begin in (self.MPI_Send_init, self.MPI_Bsend_init, self.MPI_Ssend_init, self.MPI_Rsend_init):
            mine, got, requests = [0], [0], [MPI_Request(), MPI_Request()]
            self.MPI_Recv_init(got, 1, MPI_INT, self.left, 7, W, requests[0])
            begin(mine, 1, MPI_INT, self.right, 7, W, requests[1])
            for turn in range(3):
                mine[0] = 100 * turn + self.r  # what is in the list when it starts is sent
                if turn:
                    self.MPI_Startall(2, requests)
                else:
                    self.MPI_Start(requests[0])
                    self.MPI_Start(requests[1])
                self.MPI_Waitall(2, requests, MPI_STATUSES_IGNORE)
                assert got == [100 * turn + self.left]
            for request in requests:
                self.MPI_Request_free(request)
        self.MPI_Buffer_detach([None], [None])

    def datatypes(self):
        made = {name: MPI_Datatype() for name in ("contiguous", "vector", "hvector", "indexed", "hindexed", "struct")}
        self.MPI_Type_contiguous(3, MPI_DOUBLE, made["contiguous"])
        self.MPI_Type_vector(3, 1, 3, MPI_DOUBLE, made["vector"])
        self.MPI_Type_hvector(3, 1, 24, MPI_DOUBLE, made["hvector"])
        self.MPI_Type_indexed(2, [2, 1], [0, 8], MPI_DOUBLE, made["indexed"])
        self.MPI_Type_hindexed(2, [2, 1], [0, 64], MPI_DOUBLE, made["hindexed"])
        self.MPI_Type_struct(2, [1, 1], [0, 8], [made["vector"], MPI_UB], made["struct"])  # a column, and the next one
        places = {
            **{"contiguous": [0, 1, 2], "vector": [0, 3, 6], "hvector": [0, 3, 6]},
            **{"indexed": [0, 1, 8], "hindexed": [0, 1, 8], "struct": [0, 3, 6]},
        }
        for name, box in made.items():
            self.MPI_Type_commit(box)
            got = [0.0] * 9
            self.MPI_Sendrecv([1.0, 2.0, 3.0], 3, MPI_DOUBLE, self.r, 9, got, 1, box, self.r, 9, W, None)
            assert got == [float(places[name].index(place) + 1) if place in places[name] else 0.0 for place in range(9)]
            assert self.int_of(self.MPI_Type_size, box) == 24
        assert self.int_of(self.MPI_Type_extent, made["struct"]) == 8
        assert [self.int_of(self.MPI_Type_lb, made["vector"]), self.int_of(self.MPI_Type_ub, made["vector"])] == [0, 56]
        all_, got, columns = [float(i) for i in range(9)], [0.0] * 9, made["struct"]
        self.MPI_Sendrecv(all_, 9, MPI_DOUBLE, self.r, 9, got, 3, columns, self.r, 9, W, None)
        assert got == [0.0, 3.0, 6.0, 1.0, 4.0, 7.0, 2.0, 5.0, 8.0]  # by columns
        memory = array("d", [0.0, 0.0])
        first, second = MPI_Aint(), MPI_Aint()
        self.MPI_Address(memory, first)
        self.MPI_Address(memoryview(memory)[1:], second)
        assert second.value - first.value == 8
        for box in made.values():
            self.MPI_Type_free(box)
            assert box.value == MPI_DATATYPE_NULL

    def packing(self):
        size, position, packed = mpi_Int(), mpi_Int(), bytearray(64)
        self.MPI_Pack_size(3, MPI_INT, W, size)
        assert size.value >= 12
        self.MPI_Pack([1, 2, 3], 3, MPI_INT, packed, 64, position, W)
        self.MPI_Pack([4.5], 1, MPI_DOUBLE, packed, 64, position, W)
        end, position.value, whole, real = position.value, 0, [0] * 3, [0]
        self.MPI_Unpack(packed, 64, position, whole, 3, MPI_INT, W)
        self.MPI_Unpack(packed, 64, position, real, 1, MPI_DOUBLE, W)
        assert (whole, real, position.value) == ([1, 2, 3], [4.5], end)

    def collectives(self):
        r, n, root = self.r, self.n, 2
        data = [1.5, 2.5] if r == root else [0, 0]
        self.MPI_Bcast(data, 2, MPI_DOUBLE, root, W)
        assert data == [1.5, 2.5]
        got = [None] * (2 * n) if r == root else None
        self.MPI_Gather([r, -r], 2, MPI_INT, got, 2, MPI_INT, root, W)
        assert r != root or got == [value for i in range(n) for value in (i, -i)]
        part = [None]
        self.MPI_Scatter([i * i for i in range(n)] if r == root else None, 1, MPI_INT, part, 1, MPI_INT, root, W)
        assert part == [r * r]
        all_ = [None] * n
        self.MPI_Allgather([r], 1, MPI_INT, all_, 1, MPI_INT, W)
        assert all_ == list(range(n))
        self.MPI_Alltoall([10 * r + i for i in range(n)], 1, MPI_INT, all_, 1, MPI_INT, W)
        assert all_ == [10 * i + r for i in range(n)]

    def vectors(self):
        r, n, root = self.r, self.n, 1
        counts, displs = [i + 1 for i in range(n)], [10 - i * (i + 1) // 2 - (i + 1) for i in range(n)]  # backwards
        expected = [i for i in reversed(range(n)) for _ in range(i + 1)]
        got = [None] * 10
        self.MPI_Gatherv([r] * (r + 1), r + 1, MPI_INT, got, counts, displs, MPI_INT, root, W)
        assert got == (expected if r == root else [None] * 10)
        part = [None] * (r + 1)
        self.MPI_Scatterv(expected, counts, displs, MPI_INT, part, r + 1, MPI_INT, root, W)
        assert part == [r] * (r + 1)
        self.MPI_Allgatherv([r] * (r + 1), r + 1, MPI_INT, got, counts, displs, MPI_INT, W)
        assert got == expected
        into, ones, starts = [None] * n, [1] * n, list(range(n))
        self.MPI_Alltoallv([r] * n, ones, starts, MPI_INT, into, ones, starts[::-1], MPI_INT, W)
        assert into == starts[::-1]

    def reductions(self):
        r, n, root = self.r, self.n, 3
        got = [None, None]
        self.MPI_Reduce([r, float(r)], got, 2, MPI_DOUBLE, MPI_SUM, root, W)
        assert got == ([6.0, 6.0] if r == root else [None, None])
        self.MPI_Allreduce([r, -r], got, 2, MPI_INT, MPI_MAX, W)
        assert got == [3, 0]
        pair = [None]
        self.MPI_Allreduce([((r * 3) % n + 0.5, r)], pair, 1, MPI_DOUBLE_INT, MPI_MAXLOC, W)
        assert pair == [(3.5, 1)]
        self.MPI_Scan([r], pair, 1, MPI_INT, MPI_SUM, W)
        assert pair == [r * (r + 1) // 2]
        mine = [None] * (r + 1)
        self.MPI_Reduce_scatter(list(range(10)), mine, [1, 2, 3, 4], MPI_INT, MPI_SUM, W)
        assert mine == [4 * i for i in range(r * (r + 1) // 2, r * (r + 1) // 2 + r + 1)]

        def least(invec, inoutvec, length, datatype):
            assert length == 2 and datatype == MPI_INT
            for index in range(length):
                inoutvec[index] = min(invec[index], inoutvec[index])

        op = MPI_Op()
        self.MPI_Op_create(least, True, op)
        self.MPI_Allreduce([r, -r], got, 2, MPI_INT, op, W)
        self.MPI_Op_free(op)
        assert got == [0, -3] and op.value == MPI_OP_NULL

    def groups(self):
        world, some, others, made, ranks = MPI_Group(), MPI_Group(), MPI_Group(), MPI_Group(), [None, None]
        self.MPI_Comm_group(W, world)
        self.MPI_Group_incl(world, 2, [3, 1], some)
        self.MPI_Group_excl(world, 2, [3, 1], others)
        assert self.int_of(self.MPI_Group_size, some) == 2
        assert self.int_of(self.MPI_Group_rank, some) == {3: 0, 1: 1}.get(self.r, MPI_UNDEFINED)
        self.MPI_Group_translate_ranks(some, 2, [0, 1], world, ranks)
        assert ranks == [3, 1]
        self.MPI_Group_union(some, others, made)
        assert self.int_of(self.MPI_Group_compare, made, world) == MPI_SIMILAR
        self.MPI_Group_intersection(some, others, made)
        assert self.int_of(self.MPI_Group_compare, made, MPI_GROUP_EMPTY) == MPI_IDENT
        self.MPI_Group_difference(world, some, made)
        assert self.int_of(self.MPI_Group_compare, made, others) == MPI_IDENT
        self.MPI_Group_range_incl(world, 1, [(3, 1, -2)], made)
        assert self.int_of(self.MPI_Group_compare, made, some) == MPI_IDENT
        self.MPI_Group_range_excl(world, 1, [(1, 3, 2)], made)
        assert self.int_of(self.MPI_Group_compare, made, others) == MPI_IDENT
        comm = MPI_Comm()
        self.MPI_Comm_create(W, some, comm)
        assert (comm.value == MPI_COMM_NULL) == (self.r not in (1, 3))
        self.MPI_Group_free(some)
        assert some.value == MPI_GROUP_NULL

    def communicators(self):
        half, twin = MPI_Comm(), MPI_Comm()
        self.MPI_Comm_split(W, self.r % 2, -self.r, half)
        assert self.int_of(self.MPI_Comm_size, half) == 2
        assert self.int_of(self.MPI_Comm_rank, half) == 1 - self.r // 2
        self.MPI_Comm_dup(half, twin)
        assert self.int_of(self.MPI_Comm_compare, half, twin) == MPI_CONGRUENT
        self.MPI_Comm_free(twin)
        assert twin.value == MPI_COMM_NULL

    def intercommunicators(self):
        half, inter, merged, remote = MPI_Comm(), MPI_Comm(), MPI_Comm(), MPI_Group()
        self.MPI_Comm_split(W, self.r // 2, self.r, half)
        self.MPI_Intercomm_create(half, 0, W, 2 - self.r // 2 * 2, 11, inter)
        assert self.int_of(self.MPI_Comm_test_inter, inter) and not self.int_of(self.MPI_Comm_test_inter, W)
        assert self.int_of(self.MPI_Comm_remote_size, inter) == 2
        self.MPI_Comm_remote_group(inter, remote)
        assert self.int_of(self.MPI_Group_size, remote) == 2
        self.MPI_Intercomm_merge(inter, self.r >= 2, merged)
        assert self.int_of(self.MPI_Comm_rank, merged) == self.r

    def attributes(self):
        seen, key, value, flag, twin = [], mpi_Int(), mpi_Value(), mpi_Flag(), MPI_Comm()

        def copy(comm, keyval, extra, before, after, is_copied):
            after.value, is_copied.value = before + extra, True

        def delete(comm, keyval, what, extra):
            seen.append(what)

        self.MPI_Keyval_create(copy, delete, key, 5)
        self.MPI_Attr_get(W, key, value, flag)
        assert not flag.value
        self.MPI_Attr_put(W, key, 37)
        self.MPI_Comm_dup(W, twin)
        self.MPI_Attr_get(twin, key, value, flag)
        assert flag.value and value.value == 42
        self.MPI_Attr_delete(W, key)
        self.MPI_Comm_free(twin)
        assert seen == [37, 42]
        self.MPI_Keyval_free(key)
        assert key.value == MPI_KEYVAL_INVALID
        self.MPI_Attr_get(W, MPI_TAG_UB, value, flag)
        assert flag.value and value.value >= 32767
        self.MPI_Attr_get(W, MPI_HOST, value, flag)
        assert flag.value and value.value == MPI_PROC_NULL

    def cartesian(self):
        dims, periods, coords, grid, row = [0, 0], [True, False], [None, None], MPI_Comm(), MPI_Comm()
        self.MPI_Dims_create(4, 2, dims)
        assert dims == [2, 2]
        self.MPI_Cart_create(W, 2, dims, periods, False, grid)
        assert self.int_of(self.MPI_Topo_test, grid) == MPI_CART
        assert self.int_of(self.MPI_Cartdim_get, grid) == 2
        self.MPI_Cart_coords(grid, self.r, 2, coords)
        assert coords == [self.r // 2, self.r % 2]
        assert self.int_of(self.MPI_Cart_rank, grid, coords) == self.r
        got = [None, None], [None, None], [None, None]
        self.MPI_Cart_get(grid, 2, *got)
        assert [list(map(int, each)) for each in got] == [[2, 2], [1, 0], coords]
        source, dest = mpi_Rank(), mpi_Rank()
        self.MPI_Cart_shift(grid, 1, 1, source, dest)
        is_first = self.r % 2 == 0
        assert source.value == (MPI_PROC_NULL if is_first else self.r - 1)
        assert dest.value == (self.r + 1 if is_first else MPI_PROC_NULL)
        self.MPI_Cart_sub(grid, [False, True], row)
        assert self.int_of(self.MPI_Comm_rank, row) == self.r % 2
        assert self.int_of(self.MPI_Cart_map, W, 2, dims, periods) == self.r

    def graphs(self):
        index, edges, graph = [2, 4, 6, 8], [1, 3, 0, 2, 1, 3, 0, 2], MPI_Comm()  # a ring
        self.MPI_Graph_create(W, 4, index, edges, False, graph)
        assert self.int_of(self.MPI_Topo_test, graph) == MPI_GRAPH
        nodes, many, got = mpi_Int(), mpi_Int(), ([None] * 4, [None] * 8)
        self.MPI_Graphdims_get(graph, nodes, many)
        self.MPI_Graph_get(graph, 4, 8, *got)
        assert (nodes.value, many.value, *got) == (4, 8, index, edges)
        assert self.int_of(self.MPI_Graph_neighbors_count, graph, self.r) == 2
        neighbors = [None, None]
        self.MPI_Graph_neighbors(graph, self.r, 2, neighbors)
        assert sorted(neighbors) == sorted([self.left, self.right])
        assert self.int_of(self.MPI_Graph_map, W, 4, index, edges) == self.r

    def environment(self):
        version, subversion, name, length = mpi_Int(), mpi_Int(), mpi_Text(), mpi_Int()
        self.MPI_Get_version(version, subversion)
        assert (version.value, subversion.value) >= (1, 3)
        self.MPI_Get_processor_name(name, length)
        assert len(name.value) == length.value > 0
        before = self.MPI_Wtime()
        assert self.MPI_Wtime() >= before and self.MPI_Wtick() > 0
        self.MPI_Pcontrol(1)

    def errors(self):
        handler, seen, class_, text, length = MPI_Errhandler(), [], mpi_Int(), mpi_Text(), mpi_Int()
        self.MPI_Errhandler_get(W, handler)
        assert handler.value == MPI_ERRORS_ARE_FATAL
        try:
            self.MPI_Send([1], 1, MPI_INT, 99, 0, W)
        except RuntimeError as error:
            assert error.Get_error_class() == MPI_ERR_RANK
        self.MPI_Errhandler_set(W, MPI_ERRORS_RETURN)
        code = self.MPI_Send([1], 1, MPI_INT, 99, 0, W)
        self.MPI_Error_class(code, class_)
        assert class_.value == MPI_ERR_RANK
        self.MPI_Error_string(code, text, length)
        assert "rank" in text.value.lower() and len(text.value) == length.value
        self.MPI_Errhandler_create(lambda comm, code: seen.append(code), handler)
        self.MPI_Errhandler_set(W, handler)
        self.MPI_Send([1], 1, MPI_INT, 99, 0, W)
        self.MPI_Error_class(seen[0], class_)
        assert class_.value == MPI_ERR_RANK and len(seen) == 1
        self.MPI_Errhandler_free(handler)
        self.MPI_Errhandler_set(W, MPI_ERRORS_RETURN)
