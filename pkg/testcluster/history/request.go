package history

import (
	"cmp"
	"fmt"
	"slices"
)

// subject names what a violation is of when it is no request.
type subject string

func (s subject) String() string { return string(s) }

// store checks what the store did by itself: RV-2, OC-1, OC-4, OC-5.
func (c *checker) store() {
	born, last := map[string]int64{}, int64(0)
	writes := map[string]*Request{}
	for _, r := range c.history.Requests {
		if r.Token != "" {
			writes[r.Token] = r
		}
	}
	for i := range c.history.Changes {
		ch := &c.history.Changes[i]
		c.about(subject(fmt.Sprintf("change of %s at %d", ch.Key, ch.Revision)))
		if ch.Revision <= last {
			c.broken("RV-1", "it comes after %d", last)
		}
		last = ch.Revision
		if ch.Now == nil {
			continue
		}
		if ch.Prev == nil {
			if first, twice := born[ch.Now.UID]; twice {
				c.broken("OC-4", "the object has the UID of the one created at %d", first)
			}
			born[ch.Now.UID] = ch.Revision
		} else if ch.Prev.Digest == ch.Now.Digest {
			c.broken("RV-2", "it changed nothing")
		}
		c.mark(ch, writes)
	}
}

// mark checks the marks that writers leave: each comes once, and none of a
// refused write.
func (c *checker) mark(ch *Change, writes map[string]*Request) {
	for name, token := range ch.Now.Content.Annotations {
		if ch.Prev != nil && ch.Prev.Content.Annotations[name] == token {
			continue
		}
		w := writes[token]
		if w == nil || w.Key != ch.Key {
			continue
		}
		if first, twice := c.tokens[token]; twice {
			c.broken("OC-5", "the %s that was stored at %d is stored again", w.Op, first)
		}
		c.tokens[token] = ch.Revision
		if w.Outcome != OK && w.Outcome != Unknown {
			c.broken("OC-1", "the %s was answered %q and is stored", w.Op, w.Outcome)
		}
	}
}

// requests checks every request by itself, and the revisions of writes in the
// order of time.
func (c *checker) requests() {
	for _, r := range c.history.Requests {
		c.about(r)
		switch {
		case r.Outcome == Refused:
			c.broken("ER-1", "%s", r.Detail)
		case r.Outcome != OK || r.Op == Collected:
		case r.Op == Get:
			c.get(r)
		default:
			c.write(r)
		}
		if r.Op == Get && r.Outcome == NotFound {
			c.absent(r)
		}
	}
	c.order()
}

// order is RV-1 and W-9 for writers: who writes after somebody else's write
// was acknowledged gets a greater revision.
func (c *checker) order() {
	byReturn := slices.DeleteFunc(slices.Clone(c.history.Requests), func(r *Request) bool { return !r.wrote() })
	byCall := slices.Clone(byReturn)
	slices.SortFunc(byReturn, func(a, b *Request) int { return cmp.Compare(a.Return, b.Return) })
	slices.SortFunc(byCall, func(a, b *Request) int { return cmp.Compare(a.Call, b.Call) })
	highest := int64(0)
	for _, r := range byCall {
		for len(byReturn) > 0 && byReturn[0].Return < r.Call {
			highest = max(highest, byReturn[0].Result.Revision)
			byReturn = byReturn[1:]
		}
		if r.Result.Revision <= highest {
			c.about(r)
			c.broken("RV-1", "it got revision %d after %d had been acknowledged", r.Result.Revision, highest)
		}
	}
}

// wrote says that the request made a revision, which it knows.
func (r *Request) wrote() bool {
	return r.Outcome == OK && r.Token != "" && r.Result != nil
}

// write checks an acknowledged write against the store: I1, RV-2, OC-1.
func (c *checker) write(r *Request) {
	if r.Result == nil {
		return // a deletion, which answers with a Status
	}
	ch := c.truth.byRevision[r.Result.Revision]
	if ch == nil || ch.Key != r.Key {
		if r.Token != "" {
			c.broken("I1", "it was acknowledged at %d, where the store has no change of it", r.Result.Revision)
		} else {
			c.broken("RV-2", "it was answered with revision %d, which the object never had", r.Result.Revision)
		}
		return
	}
	if ch.Now == nil {
		// The last finalizer went, and the object with it.
		return
	}
	if ch.Now.Digest != r.Result.Digest {
		c.broken("I1", "it was acknowledged otherwise than stored at %d", ch.Revision)
	}
	if r.Token == "" {
		return
	}
	if !hasValue(ch.Now.Content.Annotations, r.Token) {
		c.broken("RV-1", "it was acknowledged at %d, which is another write", ch.Revision)
	}
	if r.Expect > 0 && (ch.Prev == nil || ch.Prev.Revision != r.Expect) {
		c.broken("OC-1", "it expected revision %d and replaced another at %d", r.Expect, ch.Revision)
	}
}

func hasValue(m map[string]string, value string) bool {
	for _, v := range m {
		if v == value {
			return true
		}
	}
	return false
}

// get checks that what was read had been stored, and was fresh enough.
func (c *checker) get(r *Request) {
	stored := c.truth.Object(r.Key, r.Result.Revision)
	if stored == nil || stored.Revision != r.Result.Revision || stored.Digest != r.Result.Digest {
		c.broken("RV-4", "it shows %s, which was never stored so", r.Result.Version)
		return
	}
	until := c.truth.Until(r.Key, r.Result.Revision)
	if least := c.seen.before(r.Call); r.Read.Version == "" && until < least {
		c.broken("RV-6", "it shows %s, which ended at %d, and %d had been seen", r.Result.Version, until, least)
	}
	if r.Read.Revision > until {
		c.broken("RV-4", "it shows %s, which ended at %d, and %d was asked for", r.Result.Version, until, r.Read.Revision)
	}
}

// absent checks a 404: there must have been a moment without the object.
func (c *checker) absent(r *Request) {
	least := r.Read.Revision
	if r.Read.Version == "" {
		least = c.seen.before(r.Call)
	}
	if o := c.truth.Object(r.Key, least); o != nil && c.truth.Until(r.Key, o.Revision) >= c.history.Final {
		c.broken("RV-6", "the object is there since %d", o.Revision)
	}
}
