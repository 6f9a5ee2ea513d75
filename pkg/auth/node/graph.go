package node

import (
	"slices"
	"sync"

	corev1 "k8s.io/api/core/v1"
)

// kind is a kind of object that nodes have business with because of others.
type kind uint8

const (
	secret kind = iota
	configMap
	serviceAccount
	persistentVolumeClaim
	persistentVolume
	resourceClaim
	pod
	volumeAttachment
	resourceSlice
)

// ref is one object.
type ref struct {
	kind            kind
	namespace, name string
}

// Graph knows which objects each node has business with. Its zero value is
// empty and ready; all methods are safe for concurrent use. A pod counts until
// it is deleted, whatever its phase.
type Graph struct {
	mu sync.RWMutex
	// All below is guarded by mu.
	//
	// nodes counts, for each node, by how many of its objects each ref is
	// referred to.
	nodes map[string]map[ref]int
	// owned is what each pod, attachment and slice adds to its node.
	owned map[ref]holding
	// volumes are the bound volumes; secretVolumes finds them by the secrets
	// that a node needs to use them.
	volumes       map[string]volume
	secretVolumes map[ref]map[string]struct{}
}

// holding is what one object adds to its node: itself first.
type holding struct {
	node string
	refs []ref
}

type volume struct {
	claim   ref
	secrets []ref
}

// SetPod takes a created or changed pod. A pod without a node adds nothing.
func (g *Graph) SetPod(p *corev1.Pod) {
	self := ref{pod, p.Namespace, p.Name}
	if p.Spec.NodeName == "" {
		g.set(self, holding{})
		return
	}
	g.set(self, holding{node: p.Spec.NodeName, refs: append([]ref{self}, podRefs(p)...)})
}

// DeletePod takes a deletion.
func (g *Graph) DeletePod(namespace, name string) { g.set(ref{pod, namespace, name}, holding{}) }

// SetVolumeAttachment takes an attachment to the node.
func (g *Graph) SetVolumeAttachment(name, node string) {
	self := ref{kind: volumeAttachment, name: name}
	g.set(self, holding{node: node, refs: []ref{self}})
}

// DeleteVolumeAttachment takes a deletion.
func (g *Graph) DeleteVolumeAttachment(name string) {
	g.set(ref{kind: volumeAttachment, name: name}, holding{})
}

// SetResourceSlice takes a slice of the node's devices; node is empty for a
// slice that is not one node's.
func (g *Graph) SetResourceSlice(name, node string) {
	self := ref{kind: resourceSlice, name: name}
	g.set(self, holding{node: node, refs: []ref{self}})
}

// DeleteResourceSlice takes a deletion.
func (g *Graph) DeleteResourceSlice(name string) {
	g.set(ref{kind: resourceSlice, name: name}, holding{})
}

// SetPersistentVolume takes a created or changed volume; one that is not bound
// to a claim adds nothing.
func (g *Graph) SetPersistentVolume(pv *corev1.PersistentVolume) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.removeVolume(pv.Name)
	if pv.Spec.ClaimRef == nil {
		return
	}
	v := volume{
		claim:   ref{persistentVolumeClaim, pv.Spec.ClaimRef.Namespace, pv.Spec.ClaimRef.Name},
		secrets: volumeSecrets(pv),
	}
	if g.volumes == nil {
		g.volumes, g.secretVolumes = map[string]volume{}, map[ref]map[string]struct{}{}
	}
	g.volumes[pv.Name] = v
	for _, s := range v.secrets {
		if g.secretVolumes[s] == nil {
			g.secretVolumes[s] = map[string]struct{}{}
		}
		g.secretVolumes[s][pv.Name] = struct{}{}
	}
}

// DeletePersistentVolume takes a deletion.
func (g *Graph) DeletePersistentVolume(name string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.removeVolume(name)
}

func (g *Graph) removeVolume(name string) {
	for _, s := range g.volumes[name].secrets {
		delete(g.secretVolumes[s], name)
		if len(g.secretVolumes[s]) == 0 {
			delete(g.secretVolumes, s)
		}
	}
	delete(g.volumes, name)
}

// set replaces what the object adds to its node.
func (g *Graph) set(self ref, h holding) {
	g.mu.Lock()
	defer g.mu.Unlock()
	old, had := g.owned[self]
	if had && old.node == h.node && slices.Equal(old.refs, h.refs) {
		return
	}
	if had {
		refs := g.nodes[old.node]
		for _, r := range old.refs {
			if refs[r]--; refs[r] == 0 {
				delete(refs, r)
			}
		}
		if len(refs) == 0 {
			delete(g.nodes, old.node)
		}
		delete(g.owned, self)
	}
	if h.node == "" {
		return
	}
	if g.nodes == nil {
		g.nodes, g.owned = map[string]map[ref]int{}, map[ref]holding{}
	}
	refs := g.nodes[h.node]
	if refs == nil {
		refs = map[ref]int{}
		g.nodes[h.node] = refs
	}
	for _, r := range h.refs {
		refs[r]++
	}
	g.owned[self] = h
}

// related says whether the node has business with the object.
func (g *Graph) related(node string, r ref) bool {
	g.mu.RLock()
	defer g.mu.RUnlock()
	refs := g.nodes[node]
	if refs[r] > 0 {
		return true
	}
	switch r.kind {
	case persistentVolume:
		v, ok := g.volumes[r.name]
		return ok && refs[v.claim] > 0
	case secret:
		for name := range g.secretVolumes[r] {
			if refs[g.volumes[name].claim] > 0 {
				return true
			}
		}
	}
	return false
}
