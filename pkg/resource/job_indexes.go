package resource

import (
	"fmt"
	"strconv"
	"strings"
)

// indexRange are the indexes of a job from first to last.
type indexRange struct{ first, last int32 }

// indexList is a list of indexes as jobs write it, "1,3-5,7": in order, each
// once.
type indexList []indexRange

// parseIndexes reads a list whose indexes are below completions. With an error
// comes what was read before it.
func parseIndexes(text string, completions int32) (indexList, error) {
	if text == "" {
		return nil, nil
	}
	var list indexList
	for part := range strings.SplitSeq(text, ",") {
		r, err := parseIndexRange(part, completions)
		if err != nil {
			return list, err
		}
		if n := len(list); n > 0 && list[n-1].last >= r.first {
			return list, fmt.Errorf("non-increasing order, previous: %d, current: %d", list[n-1].last, r.first)
		}
		list = append(list, r)
	}
	return list, nil
}

func parseIndexRange(text string, completions int32) (indexRange, error) {
	first, last, ranged := strings.Cut(text, "-")
	if strings.Contains(last, "-") {
		return indexRange{}, fmt.Errorf("the fragment %q violates the requirement that an index interval can have at most two parts separated by '-'", text)
	}
	if !ranged {
		last = first
	}
	var r indexRange
	for _, end := range []struct {
		text string
		into *int32
	}{{first, &r.first}, {last, &r.last}} {
		n, err := strconv.ParseInt(end.text, 10, 32)
		if err != nil {
			return indexRange{}, fmt.Errorf("cannot convert string to integer for index: %q", end.text)
		}
		if n >= int64(completions) {
			return indexRange{}, fmt.Errorf("too large index: %q", end.text)
		}
		*end.into = int32(n)
	}
	if ranged && r.first >= r.last {
		return indexRange{}, fmt.Errorf("non-increasing order, previous: %d, current: %d", r.first, r.last)
	}
	return r, nil
}

// size is how many indexes the list has.
func (l indexList) size() int32 {
	var n int32
	for _, r := range l {
		n += r.last - r.first + 1
	}
	return n
}

// overlap is the first index that both lists have.
func (l indexList) overlap(other indexList) (index string, found bool) {
	for len(l) > 0 && len(other) > 0 {
		a, b := l[0], other[0]
		if from := max(a.first, b.first); from <= min(a.last, b.last) {
			return strconv.Itoa(int(from)), true
		}
		if a.last < b.last {
			l = l[1:]
		} else {
			other = other[1:]
		}
	}
	return "", false
}
