package resource

import (
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// TestIndexes writes random sets of indexes as jobs do and compares what is
// read back with the sets.
func TestIndexes(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	const completions = 12
	for range 2000 {
		a, b := randomSet(rnd, completions), randomSet(rnd, completions)
		x, err := parseIndexes(writeSet(a), completions)
		if err != nil {
			t.Fatalf("parse %q: %v", writeSet(a), err)
		}
		y, err := parseIndexes(writeSet(b), completions)
		if err != nil {
			t.Fatalf("parse %q: %v", writeSet(b), err)
		}
		if int(x.size()) != len(a) {
			t.Errorf("%q has %d indexes, not %d", writeSet(a), len(a), x.size())
		}
		want := ""
		for _, i := range a {
			if slices.Contains(b, i) {
				want = strconv.Itoa(i)
				break
			}
		}
		if got, found := x.overlap(y); got != want || found != (want != "") {
			t.Errorf("%q and %q overlap at %q, got %q", writeSet(a), writeSet(b), want, got)
		}
	}
}

func randomSet(rnd *rand.Rand, n int) []int {
	var out []int
	for i := range n {
		if rnd.IntN(2) == 0 {
			out = append(out, i)
		}
	}
	return out
}

// writeSet shortens three and more in a row.
func writeSet(set []int) string {
	var parts []string
	for i := 0; i < len(set); {
		j := i
		for j+1 < len(set) && set[j+1] == set[j]+1 {
			j++
		}
		if j-i >= 2 {
			parts = append(parts, strconv.Itoa(set[i])+"-"+strconv.Itoa(set[j]))
			i = j + 1
			continue
		}
		parts = append(parts, strconv.Itoa(set[i]))
		i++
	}
	return strings.Join(parts, ",")
}
