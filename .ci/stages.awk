# Folded stacks of the servers (thread;outermost;...;innermost WEIGHT) to a table: where the CPU of an operation goes, by stage.
#   awk -v micros=25.5 -f .ci/stages.awk stacks        micros: CPU of all servers an operation
# Other threads than the loop, and the kernel, are told by what is anywhere in the stack; the rest belongs to the innermost frame that a
# stage knows. What malloc and memmove do has no frames below it.

function stage(thread, stack) {
    if (thread ~ /^log-next/) return "the next segment's zeros"
    if (thread ~ /^log-/) {
        if (stack ~ /RealLog as kv_core::disk::LogDisk>::create/) return "the next segment's zeros"
        if (stack ~ /fdatasync|ext4_sync_file/) return "log thread: sync"
        if (stack ~ /pwrite|kv_core::log|crc32|kv_core::codec/) return "log thread: encoding, CRC, write"
        return "log thread: waking, waiting"
    }
    if (thread !~ /^loop-/) return "checkpoints: files and read index"
    if (stack ~ /;(__x64_sys_(epoll|poll)|do_epoll|ep_|eventfd|schedule_hrtimeout)/ || stack ~ /epoll_wait|eventfd/) return "kernel: epoll, idling, waking"
    if (stack ~ /futex/) return "kernel: waking the log"
    if (stack ~ /tcp_|sock_|__sys_recv|sys_writev|do_writev|net_rx/) return "kernel: sockets"
    if (stack ~ /exc_page_fault|asm_exc_page/) return "kernel: page faults"
    return innermost(stack)
}

function innermost(stack,    frames, count, at, frame) {
    count = split(stack, frames, ";")
    for (at = count; at > 0; at--) {
        frame = frames[at]
        if (frame ~ /malloc|^_*c?free|^_int_free|realloc|mprotect|memmove|memcpy|memset|madvise/) return "malloc, memmove, and what has no stack"
        if (frame ~ /kv_core::state|kv_core::checkpoint|kv_core::command/) return "turn: applying, or reading"
        if (frame ~ /^<?kv_core::/) return "turn: door, proposals, Readies, batching"
        if (frame ~ /^<?kv_(server|client)::/) return "loop: requests, answers, conversions, inbox"
        if (frame ~ /raft::|raft_proto/) return "turn: raft 0.7 itself"
        if (frame ~ /kv_core::/) return "turn: door, proposals, Readies, batching"
        if (frame ~ /prost|kv_proto/) return "protobuf"
        if (frame ~ /h2::|hyper|tonic|http::|tower/) return "h2, hyper, tonic"
        if (frame ~ /kv_server|kv_client/) return "loop: requests, answers, conversions, inbox"
        if (frame ~ /tokio/) return "tokio: tasks and wakers"
    }
    return "malloc, memmove, and what has no stack"
}

{
    weight = $NF
    sub(/ [0-9]+$/, "")
    thread = $0
    sub(/;.*/, "", thread)
    stages[stage(thread, $0)] += weight
    all += weight
}

END {
    for (name in stages) printf "%7.2f us  %4.1f %%  %s\n", micros * stages[name] / all, 100 * stages[name] / all, name | "sort -rn"
    close("sort -rn")
    printf "%7.2f us          all\n", micros
}
