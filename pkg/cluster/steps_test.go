package cluster

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestRunSteps(t *testing.T) {
	broken := errors.New("broken")
	type spec struct {
		name             string
		done, fail, stay bool // stay: the undo fails
		noUndo           bool
	}
	for _, c := range []struct {
		name    string
		steps   []spec
		want    []string
		wantErr []string
	}{
		{
			name:  "all succeed",
			steps: []spec{{name: "a"}, {name: "b"}},
			want:  []string{"do a", "do b"},
		},
		{
			name:    "the failing step and all before it are undone, last first",
			steps:   []spec{{name: "a"}, {name: "b", noUndo: true}, {name: "c", fail: true}, {name: "d"}},
			want:    []string{"do a", "do b", "do c", "undo c", "undo a"},
			wantErr: []string{"c: broken", "the log is somewhere"},
		},
		{
			name:    "what was done before is neither done nor undone",
			steps:   []spec{{name: "a", done: true}, {name: "b"}, {name: "c", fail: true}},
			want:    []string{"do b", "do c", "undo c", "undo b"},
			wantErr: []string{"c: broken"},
		},
		{
			name:    "a failing undo does not keep the others",
			steps:   []spec{{name: "a"}, {name: "b", stay: true}, {name: "c", fail: true}},
			want:    []string{"do a", "do b", "do c", "undo c", "undo b", "undo a"},
			wantErr: []string{"c: broken", `undo "b": broken`},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			var got []string
			var steps []step
			for _, s := range c.steps {
				st := step{name: s.name}
				st.done = func(context.Context) (bool, error) { return s.done, nil }
				st.do = func(context.Context) error {
					got = append(got, "do "+s.name)
					if s.fail {
						return broken
					}
					return nil
				}
				if !s.noUndo {
					st.undo = func(context.Context) error {
						got = append(got, "undo "+s.name)
						if s.stay {
							return broken
						}
						return nil
					}
				}
				steps = append(steps, st)
			}
			var out bytes.Buffer
			r := &stepRunner{out: &out, now: func() time.Time { return time.Time{} }, failed: func() string { return "somewhere" }}
			err := r.run(t.Context(), steps)
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("calls (-want +got):\n%s", diff)
			}
			if (err != nil) != (len(c.wantErr) > 0) {
				t.Fatalf("error %v", err)
			}
			for _, want := range c.wantErr {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("error %q lacks %q", err, want)
				}
			}
			if err != nil && !errors.Is(err, broken) {
				t.Errorf("error %v does not wrap its cause", err)
			}
		})
	}
}

// TestUndoOutlivesCancellation: the caller pressed Ctrl-C; half a cluster must
// not stay.
func TestUndoOutlivesCancellation(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	undone := false
	err := (&stepRunner{out: &bytes.Buffer{}, now: time.Now}).run(ctx, []step{
		{name: "a", do: func(context.Context) error { cancel(); return nil }, undo: func(ctx context.Context) error {
			undone = ctx.Err() == nil
			return nil
		}},
		{name: "b", do: func(context.Context) error { t.Error("b was begun after the cancellation"); return nil }},
	})
	if !errors.Is(err, context.Canceled) || !undone {
		t.Errorf("error %v, undone %t", err, undone)
	}
}
