package recorder

import (
	"encoding/base64"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"coracle/pkg/storage/memory"
	"coracle/pkg/testcluster/history"
)

// plant is a mistake and the rules that must name it.
type plant struct {
	name  string
	rules []string
	// make returns a fresh plant for each run.
	make func() Plants
	cfg  Config // what the mistake needs to show itself
}

// tries is how often a workload may miss a mistake by chance.
const tries = 20

// TestPlantedBugs proves the checker: each mistake is made on purpose, and
// must be found under its own rule.
func TestPlantedBugs(t *testing.T) {
	for _, p := range slices.Concat(streamPlants(), listPlants(), storePlants(), requestPlants()) {
		t.Run(p.name, func(t *testing.T) {
			t.Parallel()
			missing := p.rules
			var found []history.Violation
			for try := 0; try < tries && len(missing) > 0; try++ {
				cfg := p.cfg
				cfg.Seed, cfg.Workers, cfg.Each, cfg.Objects, cfg.Patience = newSeed(), 4, 100, 3, 300*time.Millisecond
				cfg.Plants = p.make()
				b := memory.New(memory.Config{})
				cfg.Backend = b
				t.Run("try", func(t *testing.T) { found = history.Check(Run(t, cfg)) })
				if err := b.Close(); err != nil {
					t.Error(err)
				}
				missing = slices.DeleteFunc(slices.Clone(missing), func(rule string) bool {
					return slices.ContainsFunc(found, func(v history.Violation) bool { return v.Rule == rule })
				})
			}
			if len(missing) > 0 {
				t.Errorf("not found as %v, only these:", missing)
				for _, v := range found[:min(len(found), 8)] {
					t.Log(v)
				}
			}
		})
	}
}

// inStreams plants an editor of events that is stateless but for its counter.
func inStreams(n int, wants func(wireEvent) bool, edit func(wireEvent) []wireEvent) func() Plants {
	return func() Plants {
		when := every{n: n}
		return Plants{Transport: streams(func(r *http.Request) func(wireEvent) []wireEvent {
			if r.URL.Query().Get("sendInitialEvents") != "" {
				return nil
			}
			return func(e wireEvent) []wireEvent {
				if !wants(e) || !when.now() {
					return []wireEvent{e}
				}
				return edit(e)
			}
		})}
	}
}

func isObject(e wireEvent) bool  { return e.Type != "BOOKMARK" && e.Type != "ERROR" }
func isDeleted(e wireEvent) bool { return e.Type == "DELETED" }

func streamPlants() []plant {
	return []plant{
		{name: "a dropped event", rules: []string{"W-1"}, make: inStreams(5, isObject, func(wireEvent) []wireEvent { return nil })},
		{name: "a duplicated event", rules: []string{"W-1"}, make: inStreams(5, isObject, func(e wireEvent) []wireEvent { return []wireEvent{e, e} })},
		{name: "events in another order", rules: []string{"W-9"}, make: reordered},
		{name: "an event with an old object", rules: []string{"W-1"}, make: inStreams(3, func(e wireEvent) bool { return e.Type == "MODIFIED" }, aged)},
		{name: "a delete event with an old object", rules: []string{"RV-3"}, make: inStreams(1, isDeleted, aged)},
		{name: "a bookmark ahead of events", rules: []string{"W-4"}, make: inStreams(3, isObject, func(e wireEvent) []wireEvent {
			return []wireEvent{e.bookmarkAt(e.revision()), e}
		})},
		{name: "a bookmark with a name", rules: []string{"W-4"}, make: inStreams(3, isObject, func(e wireEvent) []wireEvent {
			b := e.bookmarkAt(e.revision())
			b.meta()["name"] = "x"
			return []wireEvent{e, b}
		})},
		{name: "initial events that end early", rules: []string{"W-5"}, make: earlyEnd},
		{name: "a selector left as MODIFIED", rules: []string{"W-3"}, make: selectorLeft},
		{name: "a deleted object that comes back", rules: []string{"W-10"}, make: resurrected},
		{name: "an error that is no 410", rules: []string{"RV-9"}, make: inStreams(5, isObject, func(e wireEvent) []wireEvent {
			return []wireEvent{{"ERROR", map[string]any{"kind": "Status", "apiVersion": "v1", "code": 500}}, e}
		})},
		{name: "410 while the history is there", rules: []string{"W-7"}, make: inStreams(5, isObject, func(wireEvent) []wireEvent {
			return []wireEvent{{"ERROR", map[string]any{"kind": "Status", "apiVersion": "v1", "code": 410, "reason": "Expired"}}}
		})},
		{name: "a resume that begins now", rules: []string{"W-6"}, make: fromNow(func(life, opened int) bool { return opened > 1 })},
		{name: "a watch from a list that begins now", rules: []string{"W-2"}, make: fromNow(func(life, opened int) bool { return opened == 1 })},
		{name: "a resume that begins now after a restart", rules: []string{"W-11"}, make: fromNow(func(life, opened int) bool { return life > 1 }), cfg: Config{Restarts: 2}},
	}
}

// aged changes what the object of an event says.
func aged(e wireEvent) []wireEvent {
	e.meta()["annotations"] = map[string]any{"old": "yes"}
	return []wireEvent{e}
}

func reordered() Plants {
	return Plants{Transport: streams(func(r *http.Request) func(wireEvent) []wireEvent {
		var held *wireEvent
		when := every{n: 4}
		if r.URL.Query().Get("sendInitialEvents") != "" {
			return nil
		}
		return func(e wireEvent) []wireEvent {
			if held != nil {
				out := []wireEvent{e, *held}
				held = nil
				return out
			}
			if isObject(e) && when.now() {
				held = &e
				return nil
			}
			return []wireEvent{e}
		}
	})}
}

func earlyEnd() Plants {
	return Plants{Transport: streams(func(r *http.Request) func(wireEvent) []wireEvent {
		if r.URL.Query().Get("sendInitialEvents") == "" {
			return nil
		}
		var held []wireEvent
		return func(e wireEvent) []wireEvent {
			if e.Type == "ADDED" {
				held = append(held, e)
				if len(held) > 1 {
					return []wireEvent{held[len(held)-2]}
				}
				return nil
			}
			if n := len(held); n > 0 {
				last := held[n-1]
				held = nil
				return []wireEvent{e, last}
			}
			return []wireEvent{e}
		}
	})}
}

func selectorLeft() Plants {
	return Plants{Transport: streams(func(r *http.Request) func(wireEvent) []wireEvent {
		if r.URL.Query().Get("labelSelector") == "" && r.URL.Query().Get("fieldSelector") == "" {
			return nil
		}
		return func(e wireEvent) []wireEvent {
			if isDeleted(e) {
				e.Type = "MODIFIED"
			}
			return []wireEvent{e}
		}
	})}
}

func resurrected() Plants {
	return Plants{Transport: streams(func(r *http.Request) func(wireEvent) []wireEvent {
		var gone *wireEvent
		return func(e wireEvent) []wireEvent {
			switch {
			case isDeleted(e):
				c := e.copied()
				gone = &c
			case gone != nil && isObject(e) && e.meta()["name"] != gone.meta()["name"]:
				back := gone.copied()
				gone = nil
				back.Type, back.meta()["resourceVersion"] = "ADDED", e.revision()
				return []wireEvent{back, e}
			}
			return []wireEvent{e}
		}
	})}
}

// fromNow lets watches begin at the present instead of where they ask to.
func fromNow(when func(life, opened int) bool) func() Plants {
	return func() Plants {
		var mu sync.Mutex
		lives, opened := map[string]int{}, map[string]int{}
		return Plants{Transport: func(slot string, below http.RoundTripper) http.RoundTripper {
			mu.Lock()
			lives[slot]++
			life := lives[slot]
			mu.Unlock()
			return asked(func(r *http.Request, below http.RoundTripper) *http.Response {
				q := r.URL.Query()
				if q.Get("watch") == "" || q.Get("resourceVersion") == "" {
					return nil
				}
				mu.Lock()
				id := r.URL.Path + q.Get("labelSelector") + q.Get("fieldSelector")
				opened[id]++
				edit := when(life, opened[id])
				mu.Unlock()
				if !edit {
					return nil
				}
				if rv, err := currentRevision(r, below); err == nil {
					q.Set("resourceVersion", rv)
					r.URL.RawQuery = q.Encode()
				}
				return nil
			})(slot, below)
		}}
	}
}

// inLists plants an editor of lists; old is the answer to the same list
// before, or nil.
func inLists(wants func(r *http.Request) bool, edit func(body, old map[string]any) map[string]any) func() Plants {
	return func() Plants {
		var before kept
		return Plants{Transport: answers(func(r *http.Request, code int, body map[string]any) map[string]any {
			if code != http.StatusOK || !isList(r) || !wants(r) {
				return nil
			}
			return edit(body, before.swap(r.URL.String(), body))
		})}
	}
}

func wholeList(r *http.Request) bool { return len(r.URL.Query()) == 0 }
func pagedList(r *http.Request) bool { return r.URL.Query().Get("limit") != "" }

func listPlants() []plant {
	return []plant{
		{name: "a stale list", rules: []string{"RV-6", "RV-7"}, make: inLists(wholeList, func(_, old map[string]any) map[string]any { return old })},
		{name: "a stale state under a new revision", rules: []string{"RV-6"}, make: inLists(wholeList, func(body, old map[string]any) map[string]any {
			if old == nil {
				return nil
			}
			return map[string]any{"kind": body["kind"], "apiVersion": "v1", "metadata": body["metadata"], "items": old["items"]}
		})},
		{name: "a list of two revisions", rules: []string{"RV-6"}, make: inLists(wholeList, mixed)},
		{name: "a page boundary that skips", rules: []string{"PG-1"}, make: inLists(pagedList, func(body, _ map[string]any) map[string]any {
			if n := len(items(body)); n > 0 {
				body["items"] = items(body)[:n-1]
			}
			return body
		})},
		{name: "a page boundary that repeats", rules: []string{"PG-1"}, make: inLists(pagedList, func(body, _ map[string]any) map[string]any {
			if n := len(items(body)); n > 0 {
				body["items"] = append(items(body), items(body)[n-1])
			}
			return body
		})},
		{name: "a chain that goes on in newer data", rules: []string{"PG-1"}, make: looseChain},
		{name: "a chain that ends early", rules: []string{"PG-1"}, make: inLists(pagedList, func(body, _ map[string]any) map[string]any {
			delete(metadata(body), "continue")
			return body
		})},
		{name: "a wrong count of what remains", rules: []string{"PG-4"}, make: inLists(pagedList, func(body, _ map[string]any) map[string]any {
			if n, ok := metadata(body)["remainingItemCount"].(float64); ok {
				metadata(body)["remainingItemCount"] = n + 1
			}
			return body
		})},
		{name: "items in another order", rules: []string{"PG-4"}, make: inLists(wholeList, func(body, _ map[string]any) map[string]any {
			slices.Reverse(items(body))
			return body
		})},
		{name: "an exact list that is newer", rules: []string{"RV-5"}, make: func() Plants {
			return Plants{Transport: asked(func(r *http.Request, _ http.RoundTripper) *http.Response {
				if q := r.URL.Query(); isList(r) && q.Get("resourceVersionMatch") == "Exact" {
					q.Set("resourceVersionMatch", "NotOlderThan")
					r.URL.RawQuery = q.Encode()
				}
				return nil
			})}
		}},
		{name: "an expired chain without a token", rules: []string{"PG-2"}, cfg: Config{Servers: 2, CompactEvery: 3}, make: func() Plants {
			return Plants{Transport: answers(func(r *http.Request, code int, body map[string]any) map[string]any {
				if code == http.StatusGone && metadata(body)["continue"] != nil {
					delete(metadata(body), "continue")
					return body
				}
				return nil
			})}
		}},
	}
}

// mixed takes the first item that changed from the older list.
func mixed(body, old map[string]any) map[string]any {
	for i, item := range items(body) {
		for _, was := range items(old) {
			if metadata(was)["uid"] == metadata(item)["uid"] && metadata(was)["resourceVersion"] != metadata(item)["resourceVersion"] {
				out := slices.Clone(items(body))
				out[i] = was
				return map[string]any{"kind": body["kind"], "apiVersion": "v1", "metadata": body["metadata"], "items": out}
			}
		}
	}
	return nil
}

// looseChain makes every continue token one that reads what is current.
func looseChain() Plants {
	return Plants{Transport: asked(func(r *http.Request, _ http.RoundTripper) *http.Response {
		q := r.URL.Query()
		token, err := base64.RawURLEncoding.DecodeString(q.Get("continue"))
		if err != nil || len(token) == 0 {
			return nil
		}
		_, rest, _ := strings.Cut(string(token), `"rv":`)
		_, start, _ := strings.Cut(rest, ",")
		q.Set("continue", base64.RawURLEncoding.EncodeToString([]byte(`{"v":"meta.k8s.io/v1","rv":-1,`+start)))
		r.URL.RawQuery = q.Encode()
		return nil
	})}
}
