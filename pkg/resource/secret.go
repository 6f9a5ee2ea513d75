package resource

import (
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

func secrets() *Resource {
	return define(Resource{
		Version: "v1", Kind: "Secret", Plural: "secrets",
		Namespaced:          true,
		UnconditionalUpdate: true,
		New:                 func() runtime.Object { return &corev1.Secret{} },
		NewList:             func() runtime.Object { return &corev1.SecretList{} },
		FieldNames:          []string{"type"},
		FieldsRead:          []string{"type"},
		Columns:             columns("Name", "Type", "Data", "Age"),
	}, hooks[*corev1.Secret]{
		Default:        defaultSecret,
		Validate:       validateSecret,
		ValidateUpdate: validateSecretUpdate,
		Fields:         func(s *corev1.Secret) map[string]string { return map[string]string{"type": string(s.Type)} },
		Row: func(s *corev1.Secret, now time.Time) []any {
			return []any{s.Name, string(s.Type), int64(len(s.Data)), age(s.CreationTimestamp, now)}
		},
	})
}

func defaultSecret(s *corev1.Secret) {
	// stringData is for writing only: it never leaves the server again.
	if len(s.StringData) > 0 && s.Data == nil {
		s.Data = make(map[string][]byte, len(s.StringData))
	}
	for key, value := range s.StringData {
		s.Data[key] = []byte(value)
	}
	s.StringData = nil
	if s.Type == "" {
		s.Type = corev1.SecretTypeOpaque
	}
}
