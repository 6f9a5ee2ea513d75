package history

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"slices"
	"time"

	"github.com/anishathalye/porcupine"
)

// decideWithin bounds the search on one object, which takes milliseconds for
// histories of the workload's shape.
const decideWithin = 3 * time.Second

// attempt is a request as the model sees it.
type attempt struct {
	*Request
	// stored is the revision at which the store has a write of unknown outcome,
	// 0 where its outcome is unknown here too.
	stored int64
}

// linearizable checks LIN for each object by itself.
func (c *checker) linearizable() {
	byKey := map[Key][]porcupine.Operation{}
	for _, r := range c.history.Requests {
		if a, ok := c.attempt(r); ok {
			op := porcupine.Operation{Input: a, Call: r.Call, Return: r.Return}
			if r.Outcome == Unknown {
				op.Return = math.MaxInt64
			}
			byKey[r.Key] = append(byKey[r.Key], op)
		}
	}
	undecided := 0
	for _, key := range slices.SortedFunc(maps.Keys(byKey), func(a, b Key) int { return compare(Version{Key: a}, Version{Key: b}) }) {
		c.about(key)
		result, info := porcupine.CheckOperationsVerbose(model, byKey[key], decideWithin)
		switch result {
		case porcupine.Ok:
		case porcupine.Illegal:
			c.broken("LIN", "%d requests have no order that explains their answers: %s", len(byKey[key]), stuck(info, byKey[key]))
		default:
			if undecided++; undecided == 3 {
				return
			}
			c.broken("LIN", "%d requests could not be decided within %s: %s", len(byKey[key]), decideWithin, stuck(info, byKey[key]))
		}
	}
}

// attempt makes the model's input of a request; false leaves it out. A write
// of unknown outcome that leaves a mark is looked up in the store, since each
// one that is not doubles the search.
func (c *checker) attempt(r *Request) (attempt, bool) {
	switch {
	case r.Op == Get:
		return attempt{Request: r}, r.Read.Version == "" && r.Outcome != Unknown
	case r.Outcome != Unknown || r.Op == Delete || r.Op == Collected || r.Effect.Unfinalize && c.tokens[r.Token] == 0:
		return attempt{Request: r}, true
	}
	return attempt{r, c.tokens[r.Token]}, c.tokens[r.Token] != 0
}

// stuck tells how far the requests can be explained.
func stuck(info porcupine.LinearizationInfo, all []porcupine.Operation) string {
	var best []porcupine.Operation
	for _, partition := range info.PartialLinearizationsOperations() {
		for _, p := range partition {
			if len(p) > len(best) {
				best = p
			}
		}
	}
	state, placed := object{}, map[*Request]bool{}
	for _, op := range best {
		r := op.Input.(attempt)
		_, state = state.step(r)
		placed[r.Request] = true
	}
	out := fmt.Sprintf("after %d of them the object is {exists %t, UID %s, revision %d, %s}", len(best), state.exists, state.uid, state.revision, state.text)
	left := slices.DeleteFunc(slices.Clone(all), func(op porcupine.Operation) bool { return placed[op.Input.(attempt).Request] })
	slices.SortFunc(left, func(a, b porcupine.Operation) int { return cmp.Compare(a.Return, b.Return) })
	for _, op := range left[:min(3, len(left))] {
		r := op.Input.(attempt)
		out += fmt.Sprintf("\n\tnot explained: %s, expected %d %s, effect %+v", r, r.Expect, r.ExpectUID, r.Effect)
		if r.Result != nil {
			out += fmt.Sprintf(", answer at %d {%s}", r.Result.Revision, r.Result.Content)
		}
	}
	return out
}

// object is the model's state of one object.
type object struct {
	exists bool
	uid    string // empty when unknown
	// revision is 0 after a write of unknown outcome; the next answer tells it.
	revision int64
	// floor is less than the true revision when that is unknown.
	floor   int64
	content Content
	text    string // of content
}

func (o object) with(c Content) object {
	o.content, o.text = c, c.String()
	return o
}

// model is what a server does to one object. Requests of unknown outcome are
// never refused: where they did not happen, they come last.
var model = porcupine.Model{
	Init: func() any { return object{} },
	Step: func(state, input, _ any) (bool, any) {
		return state.(object).step(input.(attempt))
	},
	Equal: func(a, b any) bool {
		x, y := a.(object), b.(object)
		return x.exists == y.exists && x.uid == y.uid && x.revision == y.revision && x.floor == y.floor && x.text == y.text
	},
}

// step says whether the request may be answered as it was in this state, and
// what follows.
func (o object) step(r attempt) (bool, object) {
	switch r.Outcome {
	case Unknown:
		return o.unknown(r)
	case NotFound:
		return !o.exists, o
	case Exists:
		return r.Op == Create && o.exists, o
	case Conflict:
		return o.mayMiss(r.Request), o
	case OK:
	default:
		return true, o // reported elsewhere, and without effect
	}
	switch r.Op {
	case Get:
		return o.shows(r.Result)
	case Collected:
		return true, o.maybe(r.Request)
	case Create:
		if o.exists {
			return false, o
		}
	case Apply:
	default:
		if !o.exists || !o.meets(r.Request) {
			return false, o
		}
	}
	next := o.after(r.Request)
	if !next.exists {
		if r.Result != nil {
			next.floor = max(next.floor, r.Result.Revision)
		}
		return true, next
	}
	if next.text == o.text && o.exists {
		// Nothing changed, so the revision stays.
		return o.shows(r.Result)
	}
	return next.shows(r.Result)
}

// unknown is a request of unknown outcome.
func (o object) unknown(r attempt) (bool, object) {
	if r.stored == 0 {
		return true, o.maybe(r.Request)
	}
	can := o.exists && o.meets(r.Request)
	switch r.Op {
	case Create:
		can = !o.exists
	case Apply:
		can = true
	}
	if !can || r.stored <= max(o.floor, o.revision) {
		return false, o
	}
	next := o.after(r.Request)
	next.revision, next.floor = r.stored, r.stored-1
	return next.exists, next
}

// maybe is the effect of a request that may have been refused.
func (o object) maybe(r *Request) object {
	can := o.exists && o.meets(r)
	switch r.Op {
	case Get:
		can = false
	case Create:
		can = !o.exists
	case Apply:
		can = true
	}
	if !can {
		return o
	}
	if next := o.after(r); next.text != o.text || next.exists != o.exists {
		return next
	}
	return o
}

// meets says whether the preconditions of a request can hold.
func (o object) meets(r *Request) bool {
	switch {
	case !o.exists:
		return false
	case r.ExpectUID != "" && o.uid != "" && r.ExpectUID != o.uid:
		return false
	case r.Expect == 0:
		return true
	case o.revision == 0:
		return r.Expect > o.floor
	}
	return r.Expect == o.revision
}

// mayMiss says whether the preconditions of a request can fail.
func (o object) mayMiss(r *Request) bool {
	if !o.exists {
		return r.Expect != 0 || r.ExpectUID != ""
	}
	return r.ExpectUID != "" && r.ExpectUID != o.uid || r.Expect != 0 && r.Expect != o.revision
}

// shows says whether an answer can be this object; the result knows what the
// answer told.
func (o object) shows(got *State) (bool, object) {
	if got == nil || !o.exists || o.text != got.Content.String() ||
		o.uid != "" && o.uid != got.UID || o.revision != 0 && o.revision != got.Revision || got.Revision <= o.floor {
		return false, o
	}
	o.uid, o.revision, o.floor = got.UID, got.Revision, got.Revision-1
	return true, o
}

// after is the object after a write that happened. Its revision is not known
// yet.
func (o object) after(r *Request) object {
	next := o
	next.floor, next.revision = max(o.floor, o.revision), 0
	e := r.Effect
	if r.Op == Delete || r.Op == Collected {
		if len(o.content.Finalizers) == 0 {
			return object{floor: next.floor}
		}
		content := o.content
		content.Deleting = true
		return next.with(content)
	}
	content := o.content
	if !o.exists {
		content, next = Content{}, object{exists: true, floor: next.floor}
	}
	if e.Replace != nil {
		content.Annotations, content.Labels, content.Fields = e.Replace.Annotations, e.Replace.Labels, e.Replace.Fields
		if !o.exists {
			content.Finalizers = e.Replace.Finalizers
		}
	}
	content.Annotations = merged(content.Annotations, e.Annotate)
	content.Labels = merged(content.Labels, e.Label)
	content.Fields = merged(content.Fields, e.Field)
	if e.Unfinalize {
		content.Finalizers = nil
	}
	if content.Deleting && len(content.Finalizers) == 0 {
		return object{floor: next.floor}
	}
	return next.with(content)
}

func merged(base, patch map[string]string) map[string]string {
	if len(patch) == 0 {
		return base
	}
	out := maps.Clone(base)
	if out == nil {
		out = map[string]string{}
	}
	maps.Copy(out, patch)
	return out
}
