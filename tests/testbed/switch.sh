#!/bin/bash
# The switch that all hosts hang on, and the end of them all:  switch.sh STATE [CGROUP...]
#
# Prints its process and that of the control side, as this machine numbers them.  Then every line of its standard
# input starts a host:  NAME [CGROUP.PROCS...]
#
# It ends when its standard input does or says `end`, and so does the testbed: who started it may die by kill -9.  All hosts
# are in its process namespace, so the kernel ends them with it, and with their last process their network,
# mounts and names.  The folders, of which the kernel knows nothing, are removed by the guardian outside.
#
# Its network namespace holds two bridges and no address, and is connected to nothing but hosts.
state=$1
cgroups=("${@:2}")

guardian() {
    unshare --net --ipc --pid --fork bash "$0" "$@"
    rm -rf "$state"
    for cgroup in "${cgroups[@]}"; do
        for _ in {1..200}; do  # it can be removed when its last process is forgotten
            rmdir "$cgroup"/*/ "$cgroup" 2>/dev/null
            [ -d "$cgroup" ] || break
            sleep 0.02
        done
    done
}

switch() {
    read -r pid _ </proc/self/stat  # this /proc is the machine's
    ip -batch - <<<"$(printf 'link add br-%s type bridge\nlink set br-%s up\n' a a b b)"
    nft 'add table bridge faults; add chain bridge faults each { type filter hook forward priority 0; }'
    unshare --net bash -c 'read -r pid _ </proc/self/stat; echo "$1 $pid"; exec sleep infinity >/dev/null' - "$pid" &
    while read -r name procs && [ "$name" != end ]; do
        # shellcheck disable=SC2086
        unshare --net --mount --uts --ipc --pid --fork --kill-child \
            env -i PATH="$PATH" LANG=C.UTF-8 bash "${0%/*}/host.sh" "$state" "$name" $procs \
            </dev/null >"$state/$name/console" 2>&1 &
    done
    for cgroup in "${cgroups[@]}"; do  # what is frozen cannot die
        for host in "$cgroup"/*/; do
            if [ -e "$host/freezer.state" ]; then echo THAWED >"$host/freezer.state"; fi
            if [ -e "$host/cgroup.freeze" ]; then echo 0 >"$host/cgroup.freeze"; fi
        done
    done
}

if [ $$ = 1 ]; then switch; else guardian "$@"; fi
