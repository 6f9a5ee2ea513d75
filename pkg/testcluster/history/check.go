package history

import "fmt"

// perSubject bounds what is reported of one watch, list or request: what
// follows from a first mistake is rarely news.
const perSubject = 4

// checker holds what all checks share.
type checker struct {
	history *History
	truth   *Truth
	gone    horizon
	seen    seen
	tokens  map[string]int64 // the revision at which each write is stored, by its mark
	found   []Violation
	subject string // of the violations that come next
	count   int    // of those found of the subject
}

// Check judges a history. The result is empty when every rule holds.
func Check(h *History) []Violation {
	c := &checker{history: h, truth: NewTruth(h.Changes, h.Final), gone: newHorizon(h.Compactions), seen: newSeen(h), tokens: map[string]int64{}}
	c.store()
	c.requests()
	c.lists()
	for _, w := range h.Watches {
		c.about(w)
		c.watch(w)
	}
	c.linearizable()
	for _, s := range h.Stalled {
		c.about(subject(s))
		c.broken("END", "it was not told everything in time")
	}
	return c.found
}

// about says what the next violations are of.
func (c *checker) about(subject fmt.Stringer) { c.subject, c.count = subject.String(), 0 }

func (c *checker) broken(rule, format string, args ...any) {
	if c.count++; c.count <= perSubject {
		c.found = append(c.found, Violation{Rule: rule, Where: c.subject, Detail: fmt.Sprintf(format, args...)})
	}
}
