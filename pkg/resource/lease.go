package resource

import (
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

func leases() *Resource {
	return define(Resource{
		Group: "coordination.k8s.io", Version: "v1", Kind: "Lease", Plural: "leases",
		Namespaced:          true,
		AllowCreateOnUpdate: true,
		New:                 func() runtime.Object { return &coordinationv1.Lease{} },
		NewList:             func() runtime.Object { return &coordinationv1.LeaseList{} },
		Columns:             columns("Name", "Holder", "Age"),
	}, hooks[*coordinationv1.Lease]{
		Row: func(l *coordinationv1.Lease, now time.Time) []any {
			holder := ""
			if l.Spec.HolderIdentity != nil {
				holder = *l.Spec.HolderIdentity
			}
			return []any{l.Name, holder, age(l.CreationTimestamp, now)}
		},
	})
}
