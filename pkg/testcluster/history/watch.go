package history

// seams are the rules that a mistake at the beginning of a watch breaks.
var seams = map[Origin]string{FromList: "W-2", FromResume: "W-6", FromRestart: "W-11", FromInitial: "W-5"}

// replayer follows one watch through the history.
type replayer struct {
	*checker
	w *Watch
	// due are the events that the watch must deliver from its start on; next
	// is the index of the one that comes next.
	due  []Event
	next int
	// pos is the revision up to which the watch has told everything.
	pos int64
	// bookmarked is the revision of the last bookmark.
	bookmarked int64
	fresh      bool // no event has been delivered since the start
	initial    bool // the initial state is not complete yet
	state      map[Key]Version
}

// watch checks one watch: W-1 to W-7 and W-9 to W-11.
func (c *checker) watch(w *Watch) {
	if w.Refused != 0 {
		c.expired(w.Refused, w.Start, w.Answered)
		return
	}
	r := &replayer{checker: c, w: w, pos: w.Start, fresh: true, initial: w.Origin == FromInitial, state: map[Key]Version{}}
	if !r.initial {
		r.due = c.truth.Replay(w.Scope, w.Start, c.history.Final)
	}
	for i := range w.Events {
		e := &w.Events[i]
		switch {
		case e.Type == Error:
			if i != len(w.Events)-1 {
				c.broken("RV-9", "an event follows the ERROR")
			}
			c.expired(e.Code, r.pos, e.Seq)
			return
		case r.initial:
			r.begin(e)
		case e.Type == Bookmark:
			r.bookmark(e)
		default:
			r.event(e, w.Events[i+1:])
		}
	}
	r.end()
}

// expired checks that a watch at pos may be told that its history is gone.
func (c *checker) expired(code int, pos, seq int64) {
	switch oldest := c.gone.at(seq); {
	case code != 410:
		c.broken("RV-9", "it ended with code %d", code)
	case pos >= oldest:
		c.broken("W-7", "410 at revision %d, while the history was there from %d on", pos, oldest)
	}
}

// begin takes an event of the initial state.
func (r *replayer) begin(e *Event) {
	switch {
	case e.Type == Bookmark && e.InitialEnd:
		r.completed(e)
	case e.Type == Bookmark:
		r.broken("W-5", "a bookmark at %d before the one that ends the initial events", e.Revision)
	case e.Type != Added:
		r.broken("W-5", "%s %s among the initial events", e.Type, e.Version)
	default:
		if _, twice := r.state[e.Key]; twice {
			r.broken("W-5", "%s twice among the initial events", e.Version)
		}
		r.state[e.Key] = e.Version
	}
}

// completed compares the initial state with the store's.
func (r *replayer) completed(e *Event) {
	r.initial, r.pos, r.bookmarked = false, e.Revision, e.Revision
	r.due = r.truth.Replay(r.w.Scope, e.Revision, r.history.Final)
	if least := r.seen.before(r.w.Opened); r.w.Start == 0 && e.Revision < least {
		r.broken("RV-6", "the initial state is of %d, although %d had been seen before", e.Revision, least)
	}
	if e.Revision < r.w.Start {
		r.broken("RV-4", "the initial state is of %d, although %d was asked for", e.Revision, r.w.Start)
	}
	if e.Dirty {
		r.broken("W-4", "the bookmark at %d carries more than its revision", e.Revision)
	}
	for _, want := range r.truth.At(r.w.Scope, e.Revision) {
		switch got, ok := r.state[want.Key]; {
		case !ok:
			r.broken("W-5", "the initial events ended at %d without %s", e.Revision, want)
		case got != want:
			r.broken("W-5", "the initial events have %s, the store had %s at %d", got, want, e.Revision)
		}
		delete(r.state, want.Key)
	}
	for _, extra := range r.state {
		r.broken("W-5", "the initial events have %s, which the store had not at %d", extra, e.Revision)
	}
}

func (r *replayer) bookmark(e *Event) {
	switch {
	case !r.w.Bookmarks:
		r.broken("W-4", "a bookmark that nobody asked for at %d", e.Revision)
	case e.Dirty:
		r.broken("W-4", "the bookmark at %d carries more than its revision", e.Revision)
	case e.InitialEnd:
		r.broken("W-5", "the initial events end at %d without having begun", e.Revision)
	}
	if e.Revision < r.pos {
		r.broken("W-4", "a bookmark at %d after revision %d", e.Revision, r.pos)
		return
	}
	if e.Revision > r.history.Final {
		r.broken("W-4", "a bookmark at %d, the store ended at %d", e.Revision, r.history.Final)
	}
	if r.next < len(r.due) && r.due[r.next].Revision <= e.Revision {
		r.broken("W-4", "a bookmark at %d before %s %s", e.Revision, r.due[r.next].Type, r.due[r.next].Version)
		// What comes late is told once, not by each event.
		for r.next < len(r.due) && r.due[r.next].Revision <= e.Revision {
			r.next++
		}
	}
	r.pos, r.bookmarked = e.Revision, e.Revision
}

// event takes an event that is no bookmark; rest is what comes after it.
func (r *replayer) event(e *Event, rest []Event) {
	defer func() { r.fresh = false }()
	if e.Revision <= r.pos {
		r.late(e)
		return
	}
	for r.next < len(r.due) && r.due[r.next].Revision < e.Revision {
		r.missing(&r.due[r.next], e, rest)
		r.next++
	}
	if r.next == len(r.due) || r.due[r.next].Revision != e.Revision || r.due[r.next].Key != e.Key {
		r.foreign(e)
		return
	}
	r.pos = e.Revision
	want := &r.due[r.next]
	r.next++
	switch {
	case want.Type != e.Type && r.w.Scope.Selective():
		r.broken("W-3", "%s %s, it must be %s", e.Type, e.Version, want.Type)
	case want.Type != e.Type:
		r.broken("W-1", "%s %s, it must be %s", e.Type, e.Version, want.Type)
	case want.Digest != e.Digest && e.Type == Deleted:
		r.broken("RV-3", "DELETED %s does not carry the last state", e.Version)
	case want.Digest != e.Digest:
		r.broken("W-1", "%s %s is not what was stored", e.Type, e.Version)
	}
}

// late judges an event that is not after the one before it.
func (r *replayer) late(e *Event) {
	told := false
	for i := range r.due[:r.next] {
		told = told || r.due[i].Revision == e.Revision && r.due[i].Key == e.Key
	}
	switch {
	case r.fresh && e.Revision <= r.w.Start:
		r.broken(seams[r.w.Origin], "%s %s is not after the start", e.Type, e.Version)
	case e.Revision <= r.bookmarked:
		r.broken("W-4", "%s %s after the bookmark at %d", e.Type, e.Version, r.bookmarked)
	case e.Revision == r.pos && told:
		r.broken("W-1", "%s %s twice", e.Type, e.Version)
	default:
		r.broken("W-9", "%s %s after revision %d", e.Type, e.Version, r.pos)
	}
}

// missing judges a due event in whose place a later one came.
func (r *replayer) missing(due, e *Event, rest []Event) {
	for i := range rest {
		if rest[i].Type != Bookmark && rest[i].Revision == due.Revision && rest[i].Key == due.Key {
			r.broken("W-9", "%s %s comes before %s", e.Type, e.Version, due.Version)
			return
		}
	}
	rule := "W-1"
	if r.fresh {
		rule = seams[r.w.Origin]
	}
	r.broken(rule, "%s %s is missing before %s %s", due.Type, due.Version, e.Type, e.Version)
}

// foreign judges an event that the watch should not have had.
func (r *replayer) foreign(e *Event) {
	c := r.truth.byRevision[e.Revision]
	here := r.truth.Object(e.Key, e.Revision)
	switch {
	case e.Type != Deleted && here == nil && len(r.truth.byKey[e.Key]) > 0:
		r.broken("W-10", "%s %s, which was deleted", e.Type, e.Version)
	case c == nil || c.Key != e.Key:
		r.broken("RV-1", "%s %s, which the store never had at that revision", e.Type, e.Version)
	case r.w.Scope.Selective():
		r.broken("W-3", "%s %s is not selected", e.Type, e.Version)
	default:
		r.broken("PG-4", "%s %s is out of the scope", e.Type, e.Version)
	}
}

// end checks that nothing is missing that had to come by now.
func (r *replayer) end() {
	if r.w.Reached == 0 {
		return
	}
	if r.initial {
		r.broken("W-5", "the initial events never ended")
		return
	}
	if r.next < len(r.due) && r.due[r.next].Revision <= r.w.Reached {
		rule := "W-1"
		if r.fresh {
			rule = seams[r.w.Origin]
		}
		r.broken(rule, "%s %s never came", r.due[r.next].Type, r.due[r.next].Version)
	}
}
