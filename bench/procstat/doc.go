// Package procstat reads from /proc what a process and its children cost:
// processor time to the nanosecond, memory and descriptors.
//
// Processor time is the first field of /proc/PID/task/TID/schedstat, which is
// exact where utime and stime of proc(5) are sampled at every tick. A thread
// takes its account with it when it ends, so that the figure can only be
// trusted of programs whose threads stay. It holds what the kernel did for the
// thread in softirq context, unless it was built with
// CONFIG_IRQ_TIME_ACCOUNTING; what ksoftirqd did is in that thread's account.
//
// Memory is Pss of /proc/PID/smaps_rollup, which counts a page shared by n
// processes as 1/n.
package procstat
