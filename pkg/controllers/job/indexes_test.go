package job

import (
	"math/rand/v2"
	"slices"
	"testing"
)

func TestIndexesText(t *testing.T) {
	for _, tc := range []struct {
		text  string
		limit int
		want  string
	}{
		{"", 10, ""},
		{"1,3-5,7", 10, "1,3-5,7"},
		{"0,1,2", 10, "0-2"},
		{"0,1,4,5", 10, "0,1,4,5"},
		{"0-9", 4, "0-3"},
		{"7,8", 4, ""},
		{"3,1,2-6,x,5-4,-1,", 10, "1-6"},
	} {
		if got := parseIndexes(tc.text, tc.limit).String(); got != tc.want {
			t.Errorf("%q below %d is %q, want %q", tc.text, tc.limit, got, tc.want)
		}
	}
}

// TestIndexesAreASet compares with a plain set.
func TestIndexesAreASet(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 2000 {
		limit := 1 + rnd.IntN(30)
		var sets [2]indexes
		var plain [2][]int
		for i := range sets {
			for n := range limit {
				if rnd.IntN(3) > 0 {
					plain[i] = append(plain[i], n)
				}
			}
			shuffled := slices.Clone(plain[i])
			rnd.Shuffle(len(shuffled), func(a, b int) { shuffled[a], shuffled[b] = shuffled[b], shuffled[a] })
			sets[i] = indexesOf(shuffled...)
		}
		both := sets[0].union(sets[1])
		shared := 0
		var missing []int
		for n := range limit {
			in0, in1 := slices.Contains(plain[0], n), slices.Contains(plain[1], n)
			if in0 && in1 {
				shared++
			}
			if !in0 && !in1 {
				missing = append(missing, n)
			}
			if both.has(n) != (in0 || in1) {
				t.Fatalf("%v with %v has %d: %v", plain[0], plain[1], n, both.has(n))
			}
		}
		if both.count() != limit-len(missing) || sets[0].countIn(sets[1]) != shared {
			t.Fatalf("%v with %v: %d in all, %d shared", plain[0], plain[1], both.count(), sets[0].countIn(sets[1]))
		}
		if got := slices.Collect(both.missing(limit)); !slices.Equal(got, missing) {
			t.Fatalf("%v lacks %v below %d, want %v", both, got, limit, missing)
		}
		if again := parseIndexes(both.String(), limit); !slices.Equal(again, both) {
			t.Fatalf("%q is read as %v, want %v", both.String(), again, both)
		}
	}
}
