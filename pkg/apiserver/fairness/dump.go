package fairness

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
)

// Dump tells of what is going on, in kube-apiserver's tables: of the levels
// (dump_priority_levels), of the queues in use (dump_queues), or of the requests
// that wait (dump_requests; those that are served are counted by their queues
// and levels). False is another name.
func (c *Controller) Dump(name string) ([]byte, bool) {
	rows := map[string]func() [][]string{
		"dump_priority_levels": c.dumpLevels, "dump_queues": c.dumpQueues, "dump_requests": c.dumpRequests,
	}[name]
	if rows == nil {
		return nil, false
	}
	var out bytes.Buffer
	w := tabwriter.NewWriter(&out, 8, 0, 1, ' ', 0)
	for _, row := range rows() {
		fmt.Fprintln(w, strings.Join(row, ",\t"))
	}
	if err := w.Flush(); err != nil {
		return nil, false // a buffer takes all
	}
	return out.Bytes(), true
}

// each calls f for each level, by name, with what locks guard held.
func (c *Controller) each(f func(name string, l *level, lines []int)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, name := range slices.Sorted(maps.Keys(c.levels)) {
		l := c.levels[name]
		l.mu.Lock()
		var lines []int
		if l.queue != nil {
			lines = slices.Sorted(maps.Keys(l.queue.used))
		}
		f(name, l, lines)
		l.mu.Unlock()
	}
}

func (c *Controller) dumpLevels() [][]string {
	rows := [][]string{{"PriorityLevelName", "ActiveQueues", "IsIdle", "IsQuiescing", "WaitingRequests", "ExecutingRequests",
		"DispatchedRequests", "RejectedRequests", "TimedoutRequests", "CancelledRequests"}}
	c.each(func(name string, l *level, lines []int) {
		active, state := 0, seats(l.state.Load())
		for _, i := range lines {
			if l.queue.used[i].length > 0 {
				active++
			}
		}
		var waiting, executing, dispatched, rejected, timedOut, cancelled int64
		for key, s := range c.stats {
			if key.level != name {
				continue
			}
			late, _, _ := s.waited.read()
			waiting += s.inQueue.Load()
			executing += s.executing.Load()
			dispatched += s.dispatches.Load() + int64(late)
			rejected += s.queueFull.Load() + s.concurrency.Load()
			timedOut += s.timeOut.Load()
			cancelled += s.cancelled.Load()
		}
		_, kept := c.names[name]
		row := []string{name, strconv.Itoa(active), strconv.FormatBool(state.used() == 0 && !state.waiting()), strconv.FormatBool(!kept)}
		for _, n := range []int64{waiting, executing, dispatched, rejected, timedOut, cancelled} {
			row = append(row, strconv.FormatInt(n, 10))
		}
		rows = append(rows, row)
	})
	return rows
}

func (c *Controller) dumpQueues() [][]string {
	rows := [][]string{{"PriorityLevelName", "Index", "PendingRequests", "ExecutingRequests", "SeatsInUse", "NextDispatchR",
		"InitialSeatsSum", "MaxSeatsSum", "TotalWorkSum"}}
	seatSeconds := func(v float64) string { return fmt.Sprintf("%.8fss", v) }
	c.each(func(name string, l *level, lines []int) {
		for _, i := range lines {
			q := l.queue.used[i]
			wanted := 0
			for w := q.first; w != nil; w = w.next {
				wanted += w.seats
			}
			rows = append(rows, []string{name, strconv.Itoa(i), strconv.Itoa(q.length), strconv.Itoa(q.running), strconv.Itoa(q.seats),
				seatSeconds(q.tag), strconv.Itoa(wanted), strconv.Itoa(wanted), seatSeconds(q.work)})
		}
	})
	return rows
}

func (c *Controller) dumpRequests() [][]string {
	rows := [][]string{{"PriorityLevelName", "FlowSchemaName", "QueueIndex", "RequestIndexInQueue", "FlowDistingsher", "ArriveTime",
		"InitialSeats", "FinalSeats", "AdditionalLatency", "StartTime"}}
	c.each(func(name string, l *level, lines []int) {
		for _, i := range lines {
			n := 0
			for w := l.queue.used[i].first; w != nil; w = w.next {
				rows = append(rows, []string{name, w.flow.Schema, strconv.Itoa(i), strconv.Itoa(n), w.distinguisher,
					w.came.UTC().Format(time.RFC3339Nano), strconv.Itoa(w.seats), strconv.Itoa(w.seats), w.after.String(), time.Time{}.Format(time.RFC3339Nano)})
				n++
			}
		}
	})
	return rows
}
