package resource

import (
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

func serviceAccounts() *Resource {
	return define(Resource{
		Version: "v1", Kind: "ServiceAccount", Plural: "serviceaccounts", ShortNames: []string{"sa"},
		Namespaced:          true,
		UnconditionalUpdate: true,
		Subresources: []Subresource{{
			Name: "token", Kind: authenticationv1.SchemeGroupVersion.WithKind("TokenRequest"), Verbs: []string{"create"},
		}},
		ReturnDeleted: true,
		New:           func() runtime.Object { return &corev1.ServiceAccount{} },
		NewList:       func() runtime.Object { return &corev1.ServiceAccountList{} },
		Columns:       columns("Name", "Secrets", "Age"),
	}, hooks[*corev1.ServiceAccount]{
		Prepare: func(sa, old *corev1.ServiceAccount) {
			// Only the names of secrets are kept: they are in the account's
			// own namespace whatever a reference says.
			for i := range sa.Secrets {
				sa.Secrets[i] = corev1.ObjectReference{Name: sa.Secrets[i].Name}
			}
		},
		Row: func(sa *corev1.ServiceAccount, now time.Time) []any {
			return []any{sa.Name, int64(len(sa.Secrets)), age(sa.CreationTimestamp, now)}
		},
	})
}
