package history

import (
	"strings"
	"testing"
)

// The store of the tests: a is made, changed and deleted, b is made.
var (
	keyA = Key{Resource: "configmaps", Namespace: "ns1", Name: "a"}
	keyB = Key{Resource: "configmaps", Namespace: "ns1", Name: "b"}
	all  = Scope{Resource: "configmaps"}
)

func state(key Key, rev int64, digest uint64, uid, token, color string) *State {
	return &State{Version: Version{Key: key, Revision: rev, Digest: digest}, UID: uid,
		Content: Content{Annotations: map[string]string{"w": token}, Labels: map[string]string{"color": color}}}
}

func content(s *State) *Content { return &s.Content }

// sound is a history that breaks no rule, made anew for each test to spoil.
func sound() *History {
	a1, a2, b := state(keyA, 2, 20, "ua", "t1", "red"), state(keyA, 3, 30, "ua", "t2", "blue"), state(keyB, 4, 40, "ub", "t3", "red")
	page := &List{Call: 30, Return: 31, Scope: all, Limit: 1, Revision: 4, Outcome: OK, Items: []Version{a2.Version}, Continue: true}
	return &History{
		Final: 5,
		Changes: []Change{
			{Revision: 2, Key: keyA, Now: a1}, {Revision: 3, Key: keyA, Prev: a1, Now: a2},
			{Revision: 4, Key: keyB, Now: b}, {Revision: 5, Key: keyA, Prev: a2},
		},
		Requests: []*Request{
			{Op: Create, Key: keyA, Call: 1, Return: 2, Token: "t1", Effect: Effect{Replace: content(a1)}, Outcome: OK, Result: a1},
			{Op: Update, Key: keyA, Call: 3, Return: 4, Token: "t2", Effect: Effect{Replace: content(a2)}, Expect: 2, Outcome: OK, Result: a2},
			{Op: Create, Key: keyB, Call: 5, Return: 6, Token: "t3", Effect: Effect{Replace: content(b)}, Outcome: OK, Result: b},
			{Op: Get, Key: keyA, Call: 7, Return: 8, Outcome: OK, Result: a2},
			{Op: Delete, Key: keyA, Call: 40, Return: 41, Outcome: OK},
			{Op: Get, Key: keyA, Call: 42, Return: 43, Outcome: NotFound},
		},
		Lists: []*List{
			{Call: 10, Return: 11, Scope: all, Revision: 4, Outcome: OK, Items: []Version{a2.Version, b.Version}},
			page,
			{Call: 32, Return: 33, Scope: all, Limit: 1, Before: page, After: "ns1/a", Revision: 4, Outcome: OK, Items: []Version{b.Version}},
		},
		Watches: []*Watch{
			{Scope: all, Origin: FromList, Start: 2, Bookmarks: true, Opened: 12, Reached: 5, Events: []Event{
				{Seq: 50, Type: Modified, Version: a2.Version}, {Seq: 51, Type: Added, Version: b.Version},
				{Seq: 52, Type: Bookmark, Version: Version{Revision: 4}},
				{Seq: 53, Type: Deleted, Version: Version{Key: keyA, Revision: 5, Digest: 30}},
			}},
			{Scope: Scope{Resource: "configmaps", Label: "color", LabelValue: "red"}, Origin: FromInitial, Bookmarks: true, Opened: 2, Events: []Event{
				{Seq: 60, Type: Added, Version: a1.Version},
				{Seq: 61, Type: Bookmark, Version: Version{Revision: 2}, InitialEnd: true},
				{Seq: 62, Type: Deleted, Version: Version{Key: keyA, Revision: 3, Digest: 20}},
				{Seq: 63, Type: Added, Version: b.Version},
			}},
		},
	}
}

func TestSound(t *testing.T) {
	for _, v := range Check(sound()) {
		t.Error(v)
	}
}

// TestRules spoils the history in one place at a time; the rules that
// are named must be broken by it.
func TestRules(t *testing.T) {
	for _, c := range []struct {
		rules string
		why   string
		spoil func(h *History)
	}{
		{"W-1", "an event is missing", func(h *History) { drop(h.Watches[0], 1); drop(h.Watches[0], 1) }},
		{"W-1", "the last event never comes", func(h *History) { drop(h.Watches[0], 3) }},
		{"W-1", "an event comes twice", func(h *History) { double(h.Watches[0], 1) }},
		{"W-2", "the first event after a list is missing", func(h *History) { drop(h.Watches[0], 0) }},
		{"W-6", "the first event after a resume is missing", func(h *History) { drop(h.Watches[0], 0); h.Watches[0].Origin = FromResume }},
		{"W-11", "the first event after a restart is missing", func(h *History) { drop(h.Watches[0], 0); h.Watches[0].Origin = FromRestart }},
		{"W-9", "two events in another order", func(h *History) { swap(h.Watches[0], 0, 1) }},
		{"W-4", "a bookmark is ahead", func(h *History) { swap(h.Watches[0], 1, 2) }},
		{"W-4", "a bookmark falls", func(h *History) { h.Watches[0].Events[2].Revision = 3 }},
		{"W-4", "a bookmark carries something", func(h *History) { h.Watches[0].Events[2].Dirty = true }},
		{"W-4", "a bookmark was not asked for", func(h *History) { h.Watches[0].Bookmarks = false }},
		{"RV-3", "a deletion with an old object", func(h *History) { h.Watches[0].Events[3].Digest = 20 }},
		{"W-1", "an event with another object", func(h *History) { h.Watches[0].Events[0].Digest = 99 }},
		{"W-3", "leaving a selector as MODIFIED", func(h *History) { h.Watches[1].Events[2].Type = Modified }},
		{"W-5", "the initial events end early", func(h *History) { drop(h.Watches[1], 0) }},
		{"W-5", "the initial events never end", func(h *History) { h.Watches[1].Events = h.Watches[1].Events[:1]; h.Watches[1].Reached = 5 }},
		{"W-7", "410 while the history is there", func(h *History) { failed(h.Watches[0], 410) }},
		{"RV-9", "another error", func(h *History) { failed(h.Watches[0], 500) }},
		{"W-10", "a deleted object comes back", func(h *History) {
			h.Final = 6
			h.Watches[0].Events = append(h.Watches[0].Events, Event{Seq: 70, Type: Added, Version: Version{Key: keyA, Revision: 6, Digest: 30}})
		}},
		{"RV-6", "a list lacks an object", func(h *History) { h.Lists[0].Items = h.Lists[0].Items[:1] }},
		{"RV-6", "a list is stale", func(h *History) { h.Lists[0].Revision, h.Lists[0].Items = 3, h.Lists[0].Items[:1] }},
		{"RV-6 RV-7", "a list is older than one before", func(h *History) {
			h.Lists = append(h.Lists, &List{Call: 20, Return: 21, Scope: all, Revision: 3, Outcome: OK, Items: h.Lists[0].Items[:1]})
		}},
		{"PG-1", "a page begins late", func(h *History) { h.Lists[2].Items = nil }},
		{"PG-4", "a list in another order", func(h *History) {
			h.Lists[0].Items[0], h.Lists[0].Items[1] = h.Lists[0].Items[1], h.Lists[0].Items[0]
		}},
		{"RV-1", "a write has the revision of one before", func(h *History) {
			h.Requests[2].Result = state(keyB, 3, 40, "ub", "t3", "red")
		}},
		{"I1", "a write is not in the store", func(h *History) { h.Changes = append(h.Changes[:2:2], h.Changes[3]) }},
		{"OC-1", "a refused write is stored", func(h *History) { h.Requests[2].Outcome, h.Requests[2].Result = Exists, nil }},
		{"LIN", "a deleted object is still there", func(h *History) {
			h.Requests[5].Outcome, h.Requests[5].Result = OK, h.Requests[3].Result
		}},
		{"ER-1", "a request is refused for no reason", func(h *History) { h.Requests[3].Outcome = Refused }},
	} {
		t.Run(c.rules+" "+c.why, func(t *testing.T) {
			h := sound()
			c.spoil(h)
			found := map[string]bool{}
			for _, v := range Check(h) {
				found[v.Rule] = true
				t.Log(v)
			}
			for _, rule := range strings.Fields(c.rules) {
				if !found[rule] {
					t.Errorf("%s was not found", rule)
				}
			}
		})
	}
}

func drop(w *Watch, i int) { w.Events = append(w.Events[:i:i], w.Events[i+1:]...) }

func double(w *Watch, i int) {
	w.Events = append(w.Events[:i+1:i+1], w.Events[i:]...)
}

func swap(w *Watch, i, j int) { w.Events[i], w.Events[j] = w.Events[j], w.Events[i] }

func failed(w *Watch, code int) {
	w.Events = append(w.Events[:2:2], Event{Seq: 54, Type: Error, Code: code})
}
