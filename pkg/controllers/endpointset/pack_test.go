package endpointset

import (
	"fmt"
	"math/rand/v2"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

var meta = Meta{
	Namespace: "ns", GenerateName: "svc-",
	Labels: map[string]string{discoveryv1.LabelServiceName: "svc"},
	Owner:  metav1.OwnerReference{Kind: "Service", Name: "svc", UID: "u"},
}

func endpoint(i int, ready bool) discoveryv1.Endpoint {
	return discoveryv1.Endpoint{
		Addresses:  []string{fmt.Sprintf("10.0.%d.%d", i/256, i%256)},
		Conditions: discoveryv1.EndpointConditions{Ready: &ready},
		TargetRef:  &corev1.ObjectReference{Name: fmt.Sprintf("pod-%d", i), UID: types.UID(fmt.Sprint(i))},
	}
}

func ports(n int32) []discoveryv1.EndpointPort {
	name, protocol := "http", corev1.ProtocolTCP
	return []discoveryv1.EndpointPort{{Name: &name, Port: &n, Protocol: &protocol}}
}

func group(port int32, ids ...int) Group {
	g := Group{AddressType: discoveryv1.AddressTypeIPv4, Ports: ports(port)}
	for _, i := range ids {
		g.Endpoints = append(g.Endpoints, endpoint(i, true))
	}
	return g
}

func upTo(n int) (ids []int) {
	for i := range n {
		ids = append(ids, i)
	}
	return ids
}

// store is the slices after changes were executed.
type store struct {
	slices []*discoveryv1.EndpointSlice
	made   int
}

func (s *store) apply(c Changes) {
	for _, n := range c.Create {
		s.made++
		n.Name = fmt.Sprintf("svc-%d", s.made)
		s.slices = append(s.slices, n)
	}
	for _, u := range c.Update {
		for i, have := range s.slices {
			if have.Name == u.Name {
				s.slices[i] = u
			}
		}
	}
	for _, d := range c.Delete {
		for i, have := range s.slices {
			if have.Name == d.Name {
				s.slices = append(s.slices[:i], s.slices[i+1:]...)
				break
			}
		}
	}
}

func TestPackWrites(t *testing.T) {
	without := func(drop int, n int) (ids []int) {
		for i := range n {
			if i != drop {
				ids = append(ids, i)
			}
		}
		return ids
	}
	placeholder := Group{AddressType: discoveryv1.AddressTypeIPv4, Ports: []discoveryv1.EndpointPort{}}
	for _, tc := range []struct {
		name                   string
		before, after          []Group
		create, update, remove int
	}{
		{"first slices", nil, []Group{group(80, upTo(250)...)}, 3, 0, 0},
		{"nothing changed", []Group{group(80, upTo(250)...)}, []Group{group(80, upTo(250)...)}, 0, 0, 0},
		{"one more fills a slice with room", []Group{group(80, upTo(150)...)}, []Group{group(80, upTo(151)...)}, 0, 1, 0},
		{"one more when all are full", []Group{group(80, upTo(200)...)}, []Group{group(80, upTo(201)...)}, 1, 0, 0},
		{"one less", []Group{group(80, upTo(250)...)}, []Group{group(80, without(3, 250)...)}, 0, 1, 0},
		{"one replaced costs one write", []Group{group(80, upTo(200)...)}, []Group{group(80, append(without(3, 200), 900)...)}, 0, 1, 0},
		{"none left keeps one empty slice", []Group{group(80, upTo(5)...)}, []Group{placeholder}, 0, 1, 0},
		{"placeholder for a new service", nil, []Group{placeholder}, 1, 0, 0},
		{"placeholder is reused", []Group{placeholder}, []Group{group(80, 1)}, 0, 1, 0},
		{"port changes in place", []Group{group(80, 1)}, []Group{group(81, 1)}, 0, 1, 0},
		{"second port group", []Group{group(80, 1)}, []Group{group(80, 1), group(81, 2)}, 1, 0, 0},
		{"no service", []Group{group(80, 1)}, nil, 0, 0, 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var s store
			s.apply(Pack(nil, tc.before, meta, 100))
			c := Pack(s.slices, tc.after, meta, 100)
			if len(c.Create) != tc.create || len(c.Update) != tc.update || len(c.Delete) != tc.remove {
				t.Errorf("%d creates, %d updates, %d deletes, want %d, %d, %d",
					len(c.Create), len(c.Update), len(c.Delete), tc.create, tc.update, tc.remove)
			}
		})
	}
}

func TestPackMetadata(t *testing.T) {
	var s store
	groups := []Group{group(80, 1)}
	s.apply(Pack(nil, groups, meta, 100))
	changed := meta
	changed.Labels = map[string]string{discoveryv1.LabelServiceName: "svc", "app": "web"}
	changed.TriggerTime = "2030-01-01T00:00:00Z"
	c := Pack(s.slices, groups, changed, 100)
	if len(c.Update) != 1 || c.Update[0].Labels["app"] != "web" || c.Update[0].Annotations[triggerAnnotation] != changed.TriggerTime {
		t.Fatalf("a new label gives %+v, want one update that carries it and the trigger time", c)
	}
	s.apply(c)
	if later := Pack(s.slices, groups, Meta{
		Namespace: meta.Namespace, GenerateName: meta.GenerateName, Owner: meta.Owner, Labels: changed.Labels,
	}, 100); !later.Empty() {
		t.Errorf("the trigger time alone causes writes: %+v", later)
	}
}

// TestPackInvariants applies random sequences of groups. After each, the
// slices hold exactly the wanted endpoints, each once, none above the limit,
// and packing again writes nothing.
func TestPackInvariants(t *testing.T) {
	const limit = 7
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 2))
		var s store
		for step := range 30 {
			want := map[string]bool{}
			groups := make([]Group, 1+r.IntN(3))
			for i := range groups {
				groups[i] = Group{AddressType: discoveryv1.AddressTypeIPv4, Ports: ports(int32(80 + i))}
				for id := range 40 {
					if id%len(groups) == i && r.IntN(3) > 0 {
						e := endpoint(id, r.IntN(5) > 0)
						groups[i].Endpoints = append(groups[i].Endpoints, e)
						want[fmt.Sprint(80+i, endpointKey(e), *e.Conditions.Ready)] = true
					}
				}
			}
			s.apply(Pack(s.slices, groups, meta, limit))
			got := map[string]bool{}
			for _, slice := range s.slices {
				if len(slice.Endpoints) > limit {
					t.Fatalf("seed %d step %d: slice %s holds %d endpoints", seed, step, slice.Name, len(slice.Endpoints))
				}
				for _, e := range slice.Endpoints {
					key := fmt.Sprint(*slice.Ports[0].Port, endpointKey(e), *e.Conditions.Ready)
					if got[key] || !want[key] {
						t.Fatalf("seed %d step %d: %s is in two slices or not wanted", seed, step, key)
					}
					got[key] = true
				}
			}
			if len(got) != len(want) {
				t.Fatalf("seed %d step %d: %d endpoints, want %d", seed, step, len(got), len(want))
			}
			if again := Pack(s.slices, groups, meta, limit); !again.Empty() {
				t.Fatalf("seed %d step %d: packing again writes %+v", seed, step, again)
			}
		}
	}
}
