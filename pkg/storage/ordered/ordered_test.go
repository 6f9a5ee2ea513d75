package ordered

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestAgainstModel makes random changes and compares every published map with
// a plain map, and older maps with what they were when published.
func TestAgainstModel(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	type snapshot struct {
		m     Map[int]
		model map[string]int
	}
	var kept []snapshot
	model := map[string]int{}
	edit := Map[int]{}.Edit()
	for step := range 40_000 {
		// The workload swells and shrinks so that nodes split and merge.
		key := fmt.Sprintf("/r/%02d/%04d", rnd.IntN(12), rnd.IntN(800))
		grow := (step/8000)%2 == 0
		if rnd.IntN(10) < 7 == grow {
			old, had := edit.Set(key, step)
			want, wantHad := model[key]
			if old != want || had != wantHad {
				t.Fatalf("Set(%s) = %d, %t, want %d, %t", key, old, had, want, wantHad)
			}
			model[key] = step
		} else {
			old, had := edit.Delete(key)
			want, wantHad := model[key]
			if old != want || had != wantHad {
				t.Fatalf("Delete(%s) = %d, %t, want %d, %t", key, old, had, want, wantHad)
			}
			delete(model, key)
		}
		if rnd.IntN(500) == 0 {
			kept = append(kept, snapshot{edit.Map(), maps.Clone(model)})
		}
	}
	for len(model) > 0 {
		for key := range model {
			edit.Delete(key)
			delete(model, key)
			break
		}
	}
	kept = append(kept, snapshot{edit.Map(), model})
	for i, s := range kept {
		if got := maps.Collect(s.m.From("")); !maps.Equal(got, s.model) {
			t.Fatalf("snapshot %d: %s", i, cmp.Diff(s.model, got))
		}
		if s.m.Len() != len(s.model) {
			t.Fatalf("snapshot %d: Len %d, want %d", i, s.m.Len(), len(s.model))
		}
		checkPrefixes(t, s.m, s.model)
	}
}

func checkPrefixes(t *testing.T, m Map[int], model map[string]int) {
	t.Helper()
	sorted := slices.Sorted(maps.Keys(model))
	for ns := range 12 {
		prefix := fmt.Sprintf("/r/%02d/", ns)
		for _, after := range []string{"", prefix + "0400", prefix + "9", "/r/"} {
			var want []string
			for _, k := range sorted {
				if strings.HasPrefix(k, prefix) && (after == "" || k > after) {
					want = append(want, k)
				}
			}
			var got []string
			for k, v := range m.Prefix(prefix, after) {
				got = append(got, k)
				if one, ok := m.Get(k); !ok || one != v {
					t.Fatalf("Get(%s) = %d, %t, want %d", k, one, ok, v)
				}
			}
			if !slices.Equal(got, want) {
				t.Fatalf("Prefix(%s, %s): %s", prefix, after, cmp.Diff(want, got))
			}
			if n := m.PrefixLen(prefix, after); n != len(want) {
				t.Fatalf("PrefixLen(%s, %s) = %d, want %d", prefix, after, n, len(want))
			}
		}
	}
}

func TestPrefixEnd(t *testing.T) {
	for prefix, want := range map[string]string{"": "", "/a/": "/a0", "a\xff": "b", "\xff\xff": ""} {
		if got := PrefixEnd(prefix); got != want {
			t.Errorf("PrefixEnd(%q) = %q, want %q", prefix, got, want)
		}
	}
}

func BenchmarkSetPublish(b *testing.B) {
	edit := Map[int]{}.Edit()
	for i := range 100_000 {
		edit.Set(fmt.Sprintf("/registry/pods/default/web-%06d", i*7919%100_000), i)
	}
	m := edit.Map()
	b.ReportAllocs()
	for i := range b.N {
		e := m.Edit()
		e.Set(fmt.Sprintf("/registry/pods/default/web-%06d", i%100_000), i)
		m = e.Map()
	}
}
