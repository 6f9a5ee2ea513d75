package history

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Key names an object.
type Key struct {
	Resource, Namespace, Name string // Namespace is empty for a cluster-scoped one
}

// Path is the part of the key after the resource, which lists are ordered by.
func (k Key) Path() string {
	if k.Namespace == "" {
		return k.Name
	}
	return k.Namespace + "/" + k.Name
}

func (k Key) String() string { return k.Resource + "/" + k.Path() }

// Content is the part of an object that the workload writes and the model
// predicts.
type Content struct {
	Annotations, Labels map[string]string
	Fields              map[string]string // selectable fields
	Finalizers          []string
	Deleting            bool
}

// String is the same for equal contents.
func (c Content) String() string {
	var b strings.Builder
	for i, m := range []map[string]string{c.Annotations, c.Labels, c.Fields} {
		b.WriteString([]string{"annotations", " labels", " fields"}[i])
		for _, k := range slices.Sorted(maps.Keys(m)) {
			fmt.Fprintf(&b, " %q=%q", k, m[k])
		}
	}
	fmt.Fprintf(&b, " finalizers %q deleting %t", c.Finalizers, c.Deleting)
	return b.String()
}

// Version is an object at a revision. Digest is of all of it but the
// resourceVersion: a deleted object has the one of its last state.
type Version struct {
	Key      Key
	Revision int64
	Digest   uint64
}

func (v Version) String() string { return fmt.Sprintf("%s@%d", v.Key, v.Revision) }

// State is a Version with what the checks look into.
type State struct {
	Version
	UID     string
	Content Content
}

// Change is one change of the store. Now is nil for a deletion, Prev for a
// creation.
type Change struct {
	Revision  int64
	Key       Key
	Prev, Now *State
}

// Scope is what a list or a watch selects; empty parts select everything.
type Scope struct {
	Resource, Namespace, Name string
	Label, LabelValue         string
	Field, FieldValue         string
}

// Selects says whether an object in this state is in the scope. A nil state is
// not.
func (s Scope) Selects(o *State) bool {
	return o != nil && s.Resource == o.Key.Resource &&
		(s.Namespace == "" || s.Namespace == o.Key.Namespace) &&
		(s.Name == "" || s.Name == o.Key.Name) &&
		(s.Label == "" || s.LabelValue == o.Content.Labels[s.Label]) &&
		(s.Field == "" || s.FieldValue == o.Content.Fields[s.Field])
}

// Selective says that objects can enter and leave the scope.
func (s Scope) Selective() bool { return s.Label != "" || s.Field != "" }

func (s Scope) String() string {
	out := s.Resource
	for _, part := range []struct{ name, value string }{
		{"namespace", s.Namespace}, {"name", s.Name}, {s.Label, s.LabelValue}, {s.Field, s.FieldValue}} {
		if part.name != "" && part.value != "" {
			out += " " + part.name + "=" + part.value
		}
	}
	return out
}

// Op is what a request does.
type Op string

// The requests on one object.
const (
	Get    Op = "get"
	Create Op = "create"
	Update Op = "update"
	Patch  Op = "patch"
	Apply  Op = "apply"
	Delete Op = "delete"
	// Collected is the part of a deletecollection that is about one object: it
	// deletes the object unless that is gone, and does not tell which.
	Collected Op = "collected"
)

// Outcome is how a request was answered.
type Outcome string

// The outcomes of requests.
const (
	OK       Outcome = "ok"
	Exists   Outcome = "already exists"
	Conflict Outcome = "conflict"
	NotFound Outcome = "not found"
	Expired  Outcome = "expired"
	// Unknown is a timeout, a broken connection or a 5xx: it may have happened.
	Unknown Outcome = "unknown"
	// Refused is every other answer; Detail tells.
	Refused Outcome = "refused"
)

// Effect is what a write does to the content of an object.
type Effect struct {
	Replace    *Content          // by create and update; finalizers and deletion stay as they are on update
	Annotate   map[string]string // by patch and apply
	Label      map[string]string
	Field      map[string]string
	Unfinalize bool // removes all finalizers
}

// Read is the resourceVersion of a read.
type Read struct {
	Version string // "" consistent, "0" any, else Revision
	// Revision is Version as a number.
	Revision int64
	Exact    bool // lists only
}

// Request is one request on one object.
type Request struct {
	Client, Server string
	Op             Op
	Key            Key
	Call, Return   int64 // Return is 0 when the outcome is unknown
	Read           Read  // of a Get
	Effect         Effect
	// Token is a value that only this write puts into an annotation; empty for
	// deletions and for writes that change nothing.
	Token string
	// Expect and ExpectUID are preconditions; zero demands nothing.
	Expect    int64
	ExpectUID string
	Outcome   Outcome
	Detail    string
	// Result is the object in the answer, nil when there was none.
	Result *State
}

func (r *Request) String() string {
	return fmt.Sprintf("%s of %s by %s on %s [%d,%d]: %s", r.Op, r.Key, r.Client, r.Server, r.Call, r.Return,
		strings.TrimSpace(string(r.Outcome)+" "+r.Detail))
}

// List is one page of a list.
type List struct {
	Client, Server string
	Call, Return   int64
	Scope          Scope
	Read           Read
	Limit          int
	// Before is the page that the continue token came from, nil for a first
	// page.
	Before *List
	// After is where the token begins: the last item of the chain so far.
	After    string
	Outcome  Outcome
	Detail   string
	Revision int64
	Items    []Version
	// Continue says that there was a token, for 410 too.
	Continue  bool
	Remaining *int64
}

func (l *List) String() string {
	return fmt.Sprintf("list of %s by %s on %s [%d,%d] at %d", l.Scope, l.Client, l.Server, l.Call, l.Return, l.Revision)
}

// EventType is the type of a watch event.
type EventType string

// The types of watch events.
const (
	Added    EventType = "ADDED"
	Modified EventType = "MODIFIED"
	Deleted  EventType = "DELETED"
	Bookmark EventType = "BOOKMARK"
	Error    EventType = "ERROR"
)

// Event is one event of a watch.
type Event struct {
	Seq  int64
	Type EventType
	Version
	InitialEnd bool // of a bookmark
	Dirty      bool // of a bookmark: it carries more than it may
	Code       int  // of an error
}

// Origin is where the start of a watch comes from.
type Origin string

// The origins of watches.
const (
	FromList    Origin = "list"    // the revision of a list
	FromInitial Origin = "initial" // sendInitialEvents
	FromResume  Origin = "resume"  // the last revision of a watch of the same server
	FromRestart Origin = "restart" // the last revision of a watch of a server that ended, or of another
)

// Watch is one watch request with all it delivered.
type Watch struct {
	Client, Server string
	Scope          Scope
	Origin         Origin
	// Start is the resourceVersion asked for; 0 only with FromInitial, where it
	// is a consistent read.
	Start     int64
	Bookmarks bool
	Opened    int64
	Events    []Event
	// Refused is the code of the answer when it was no stream, with Answered.
	Refused  int
	Answered int64
	// Reached demands that the watch has delivered everything up to this
	// revision; 0 demands nothing.
	Reached int64
}

func (w *Watch) String() string {
	return fmt.Sprintf("watch of %s by %s on %s from %d (%s)", w.Scope, w.Client, w.Server, w.Start, w.Origin)
}

// Compaction says that history before Revision may be gone from Seq on.
type Compaction struct{ Seq, Revision int64 }

// History is everything that was recorded.
type History struct {
	Changes     []Change // in the order of their revisions, without a hole
	Final       int64    // the store's last revision
	Compactions []Compaction
	Requests    []*Request
	Lists       []*List
	Watches     []*Watch
	// Stalled tells of clients that were not told everything in time.
	Stalled []string
}

// Violation is one breach of a rule.
type Violation struct {
	Rule   string
	Where  string
	Detail string
}

func (v Violation) String() string { return v.Rule + ": " + v.Where + ": " + v.Detail }

// compare orders versions as lists do.
func compare(a, b Version) int { return cmp.Compare(a.Key.Path(), b.Key.Path()) }
