package job

import (
	"iter"
	"slices"
	"strconv"
	"strings"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
)

// span is a run of indexes, both ends included.
type span struct{ first, last int }

// indexes is a set of completion indexes: spans in order, with gaps between.
type indexes []span

// parseIndexes reads the form in which a job's status and policies write
// indexes, "1,3-5,7", and leaves out what is not below limit. What cannot be
// read is left out too: nobody but a foreign writer makes it, and a lost index
// runs again, which a job must bear anyway.
func parseIndexes(text string, limit int) indexes {
	var set indexes
	for part := range strings.SplitSeq(text, ",") {
		from, to, ranged := strings.Cut(part, "-")
		if !ranged {
			to = from
		}
		first, err1 := strconv.Atoi(from)
		last, err2 := strconv.Atoi(to)
		last = min(last, limit-1)
		if err1 != nil || err2 != nil || first < 0 || first > last {
			continue
		}
		set = append(set, span{first, last})
	}
	return set.tidied()
}

// indexesOf makes a set of numbers.
func indexesOf(numbers ...int) indexes {
	set := make(indexes, 0, len(numbers))
	for _, n := range numbers {
		set = append(set, span{n, n})
	}
	return set.tidied()
}

// tidied sorts s and joins what touches.
func (s indexes) tidied() indexes {
	slices.SortFunc(s, func(a, b span) int { return a.first - b.first })
	out := s[:0]
	for _, next := range s {
		if n := len(out); n > 0 && next.first <= out[n-1].last+1 {
			out[n-1].last = max(out[n-1].last, next.last)
			continue
		}
		out = append(out, next)
	}
	return out
}

// union returns the indexes of s and others.
func (s indexes) union(others ...indexes) indexes {
	return slices.Concat(append(others, s)...).tidied()
}

// String writes s as the API wants it: from three in a row on, as a range.
func (s indexes) String() string {
	var b strings.Builder
	for i, run := range s {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(strconv.Itoa(run.first))
		switch run.last - run.first {
		case 0:
			continue
		case 1:
			b.WriteByte(',')
		default:
			b.WriteByte('-')
		}
		b.WriteString(strconv.Itoa(run.last))
	}
	return b.String()
}

func (s indexes) has(n int) bool {
	_, found := slices.BinarySearchFunc(s, n, func(run span, n int) int {
		switch {
		case run.last < n:
			return -1
		case run.first > n:
			return 1
		}
		return 0
	})
	return found
}

// count returns how many indexes s has.
func (s indexes) count() int {
	n := 0
	for _, run := range s {
		n += run.last - run.first + 1
	}
	return n
}

// countIn returns how many indexes s and t share.
func (s indexes) countIn(t indexes) int {
	n := 0
	for i, j := 0, 0; i < len(s) && j < len(t); {
		n += max(0, min(s[i].last, t[j].last)-max(s[i].first, t[j].first)+1)
		if s[i].last < t[j].last {
			i++
		} else {
			j++
		}
	}
	return n
}

// missing yields, in order, the indexes below limit that s lacks.
func (s indexes) missing(limit int) iter.Seq[int] {
	return func(yield func(int) bool) {
		next := 0
		for _, run := range append(slices.Clip(s), span{limit, limit}) {
			for ; next < min(run.first, limit); next++ {
				if !yield(next) {
					return
				}
			}
			next = max(next, run.last+1)
		}
	}
}

// noIndex is the index of a pod that has none.
const noIndex = -1

// indexOf returns the completion index that pod works on, or noIndex.
func indexOf(pod *corev1.Pod) int {
	n, err := strconv.Atoi(pod.Annotations[batchv1.JobCompletionIndexAnnotation])
	if err != nil || n < 0 {
		return noIndex
	}
	return n
}
