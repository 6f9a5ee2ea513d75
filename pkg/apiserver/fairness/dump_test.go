package fairness

import (
	"context"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// table is a dump without its header, of one level, in words.
func table(t *testing.T, c *Controller, name, level string) (rows [][]string) {
	t.Helper()
	text, ok := c.Dump(name)
	if !ok {
		t.Fatalf("there is no %s", name)
	}
	for line := range strings.Lines(string(text)) {
		row := strings.Fields(strings.ReplaceAll(line, ",", " "))
		if row[0] == level {
			rows = append(rows, row[1:])
		}
	}
	return rows
}

// TestDump: the tables tell of what is served, of what waits and of whom, and of
// what has become of others.
func TestDump(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := small(2, 1, 2)
		if got := table(t, c, "dump_priority_levels", "small"); len(got) != 1 || !slices.Equal(got[0], strings.Fields("0 true false 0 0 0 0 0 0")) {
			t.Errorf("idle: %v", got)
		}
		first, err := enter(t.Context(), c, "a", 2, time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		came := time.Now()
		leaving, leave := context.WithCancel(t.Context())
		for _, who := range []string{"b", "gone"} {
			ctx := t.Context()
			if who == "gone" {
				ctx = leaving
			}
			go func() {
				if ticket, err := enter(ctx, c, who, 1, time.Hour); err == nil {
					ticket.Leave()
				}
			}()
			synctest.Wait()
		}
		if _, err := enter(t.Context(), c, "late", 1, time.Hour); reason(err) != reasonQueueFull {
			t.Errorf("a third one: %v", err)
		}
		if got := table(t, c, "dump_priority_levels", "small"); !slices.Equal(got[0], strings.Fields("1 false false 2 1 1 1 0 0")) {
			t.Errorf("levels: %v", got)
		}
		if got := table(t, c, "dump_queues", "small"); len(got) != 1 || !slices.Equal(got[0], strings.Fields("0 2 0 0 0.00000000ss 2 2 0.00600000ss")) {
			t.Errorf("queues: %v", got)
		}
		stamp := came.UTC().Format(time.RFC3339Nano)
		want := [][]string{{"small", "0", "0", "b", stamp, "1", "1", "0s", "0001-01-01T00:00:00Z"}, {"small", "0", "1", "gone", stamp, "1", "1", "0s", "0001-01-01T00:00:00Z"}}
		if got := table(t, c, "dump_requests", "small"); !slices.EqualFunc(got, want, slices.Equal) {
			t.Errorf("requests: %v, want %v", got, want)
		}
		leave()
		synctest.Wait()
		if got := table(t, c, "dump_priority_levels", "small"); !slices.Equal(got[0], strings.Fields("1 false false 1 1 1 1 0 1")) {
			t.Errorf("after one has gone: %v", got)
		}
		first.Leave()
		synctest.Wait()
		if got := table(t, c, "dump_priority_levels", "small"); !slices.Equal(got[0], strings.Fields("0 true false 0 0 2 1 0 1")) {
			t.Errorf("at the end: %v", got)
		}
		if _, ok := c.Dump("dump_everything"); ok {
			t.Error("there is a table of everything")
		}
	})
}
