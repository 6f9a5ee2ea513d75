// Package history judges what clients of an API server were told, against what
// the store did.
//
// A History is recorded elsewhere: every change of the store, every request
// with its answer, every event of every watch. Check reads it afterwards and
// returns each Violation with the rule that was broken. It is pure: no clock,
// no I/O, no knowledge of the server. It has selectors, replay and a model of
// an object of its own, so that it shares no mistake with what it judges.
//
// Order in time is a counter that the recorder draws from before it sends and
// after it receives: who returned at a lower number than somebody else was
// called was before them.
//
// The rules:
//
//	LIN   the requests on one object are linearizable
//	I1    an acknowledged write is in the store as it was acknowledged
//	RV-1  a write has a revision of its own, greater than those before it
//	RV-2  a write that changes nothing makes no revision
//	RV-3  DELETED carries the last object, at the revision of the deletion
//	RV-4  a read shows what was, not older than it asked for
//	RV-5  an exact list is at the revision it asked for, as it was then
//	RV-6  a consistent read sees all that anybody saw before; a list at a
//	      revision is the state at that revision
//	RV-7  the revision of a collection never goes back
//	RV-9  an error ends a watch, and only 410 does
//	OC-1  of writers on one revision one wins; what is refused is not stored
//	OC-4  a recreated object has a UID of its own
//	OC-5  a write happens once
//	PG-1  the pages of a chain are one snapshot, without gap or repeat
//	PG-2  an expired chain says so, and offers a token that goes on
//	PG-4  order, scope and the count of what remains are right
//	W-1   a watch is the replay of history
//	W-2   a watch from a list has no gap or repeat at the seam
//	W-3   entering and leaving a selector
//	W-4   bookmarks
//	W-5   initial events and the bookmark that ends them
//	W-6   a watch resumes where it was told to
//	W-7   410 comes only when the history is gone
//	W-9   the order of revisions is the order of commits, for watchers and writers
//	W-10  nothing that was deleted comes back
//	W-11  a watch resumes across a restart of the server
//	END   after the last write every client is told everything
//	ER-1  a request is answered as its kind may be
package history
