package podset

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/tools/cache"
)

// ByNode is the name of the index that AddNodeIndex makes.
const ByNode = "node-name"

// AddNodeIndex indexes pods by the node they are bound to. Adding it twice is
// harmless.
func AddNodeIndex(pods cache.SharedIndexInformer) {
	if _, ok := pods.GetIndexer().GetIndexers()[ByNode]; ok {
		return
	}
	err := pods.AddIndexers(cache.Indexers{ByNode: func(obj any) ([]string, error) {
		if p, ok := obj.(*corev1.Pod); ok && p.Spec.NodeName != "" {
			return []string{p.Spec.NodeName}, nil
		}
		return nil, nil
	}})
	if err != nil {
		panic(fmt.Sprintf("add indices before the informers stop: %v", err))
	}
}
