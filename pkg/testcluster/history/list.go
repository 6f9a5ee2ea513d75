package history

import (
	"cmp"
	"slices"
)

// lists checks all lists: RV-4 to RV-7 and PG-1 to PG-4.
func (c *checker) lists() {
	// RV-7 wants them in the order of time; a list is compared with those that
	// had returned before it was called.
	byReturn := slices.Clone(c.history.Lists)
	slices.SortFunc(byReturn, func(a, b *List) int { return cmp.Compare(a.Return, b.Return) })
	byCall := slices.Clone(c.history.Lists)
	slices.SortFunc(byCall, func(a, b *List) int { return cmp.Compare(a.Call, b.Call) })
	highest := map[string]int64{} // by resource, of consistent lists
	for _, l := range byCall {
		for len(byReturn) > 0 && byReturn[0].Return < l.Call {
			if done := byReturn[0]; done.consistent() {
				highest[done.Scope.Resource] = max(highest[done.Scope.Resource], done.Revision)
			}
			byReturn = byReturn[1:]
		}
		c.about(l)
		if l.consistent() && l.Revision < highest[l.Scope.Resource] {
			c.broken("RV-7", "an earlier list was at %d", highest[l.Scope.Resource])
		}
		c.list(l)
	}
}

// consistent says that the list promised to show the newest state.
func (l *List) consistent() bool {
	return l.Outcome == OK && l.Before == nil && l.Read.Version == ""
}

func (c *checker) list(l *List) {
	switch l.Outcome {
	case OK:
	case Unknown:
		return
	case Expired:
		c.expiredList(l)
		return
	default:
		c.broken("ER-1", "%s: %s", l.Outcome, l.Detail)
		return
	}
	c.version(l)
	if l.Revision > c.history.Final || l.Revision <= 0 {
		c.broken("RV-1", "the store ended at %d", c.history.Final)
		return
	}
	if !slices.IsSortedFunc(l.Items, compare) {
		c.broken("PG-4", "the items are not in order")
	}
	c.items(l)
}

// version checks the revision of a list against what it asked for.
func (c *checker) version(l *List) {
	least := c.seen.before(l.Call)
	switch {
	case l.Before != nil && l.Before.Outcome == OK:
		if l.Revision != l.Before.Revision {
			c.broken("PG-1", "the page before is of %d", l.Before.Revision)
		}
	case l.Before != nil || l.Read.Version == "":
		// A chain that goes on after 410 reads anew.
		if l.Revision < least {
			c.broken("RV-6", "%d had been seen before", least)
		}
	case l.Read.Exact:
		if l.Revision != l.Read.Revision {
			c.broken("RV-5", "%d was asked for", l.Read.Revision)
		}
	case l.Revision < l.Read.Revision:
		c.broken("RV-4", "%d was asked for", l.Read.Revision)
	}
}

// items compares a page with the state at its revision.
func (c *checker) items(l *List) {
	all := c.truth.At(l.Scope, l.Revision)
	want := all
	if l.After != "" {
		want = want[indexAfter(want, l.After):]
	}
	more := 0
	if l.Limit > 0 && len(want) > l.Limit {
		more = len(want) - l.Limit
		want = want[:l.Limit]
	}
	if !slices.Equal(want, l.Items) {
		c.broken(l.rule(), "%s", difference(want, l.Items))
	}
	switch {
	case more > 0 && !l.Continue:
		c.broken("PG-1", "it ends although %d objects remain", more)
	case more == 0 && l.Continue && !l.Scope.Selective() && l.Scope.Name == "":
		c.broken("PG-1", "it offers to go on although nothing remains")
	}
	if l.Remaining == nil {
		return
	}
	if l.Scope.Selective() || l.Scope.Name != "" {
		c.broken("PG-4", "it counts %d remaining objects, which a list with a selector may not", *l.Remaining)
	} else if *l.Remaining != int64(more) {
		c.broken("PG-4", "it counts %d remaining objects, there are %d", *l.Remaining, more)
	}
}

// rule is the one that a wrong item breaks.
func (l *List) rule() string {
	switch {
	case l.Before != nil || l.Limit > 0:
		return "PG-1"
	case l.Read.Exact:
		return "RV-5"
	case l.Read.Version != "":
		return "RV-4"
	}
	return "RV-6"
}

// indexAfter is the index of the first version after a path.
func indexAfter(items []Version, path string) int {
	i, _ := slices.BinarySearchFunc(items, path, func(v Version, path string) int {
		return cmp.Or(cmp.Compare(v.Key.Path(), path), -1)
	})
	return i
}

// difference says in what two pages differ first.
func difference(want, got []Version) string {
	for i := range max(len(want), len(got)) {
		switch {
		case i >= len(want):
			return "it has " + got[i].String() + ", which is not in it at that revision"
		case i >= len(got):
			return "it lacks " + want[i].String()
		case want[i].Key != got[i].Key || want[i].Revision != got[i].Revision:
			return "it has " + got[i].String() + " where " + want[i].String() + " stands"
		case want[i] != got[i]:
			return "it has " + got[i].String() + " otherwise than it was stored"
		}
	}
	return "it is right"
}

// expiredList checks a 410.
func (c *checker) expiredList(l *List) {
	asked := l.Read.Revision
	if l.Before != nil {
		asked = l.Before.Revision
		if !l.Continue {
			c.broken("PG-2", "410 without a token that goes on")
		}
	}
	if oldest := c.gone.at(l.Return); asked == 0 || asked >= oldest {
		c.broken("PG-2", "410 for revision %d, while the history was there from %d on", asked, oldest)
	}
}
