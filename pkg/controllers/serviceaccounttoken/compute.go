package serviceaccounttoken

import (
	"bytes"
	"slices"

	corev1 "k8s.io/api/core/v1"
)

// complete says that a token Secret has all that its readers rely on.
func complete(s *corev1.Secret, bundle []byte) bool {
	return len(s.Data[corev1.ServiceAccountTokenKey]) > 0 && len(s.Data[corev1.ServiceAccountNamespaceKey]) > 0 &&
		bytes.Equal(s.Data[corev1.ServiceAccountRootCAKey], bundle)
}

// fill returns s with what it lacks. A token that is there stays, also when it
// is somebody's own; sign makes the missing one.
func fill(s *corev1.Secret, account *corev1.ServiceAccount, bundle []byte, sign Sign) (*corev1.Secret, error) {
	s = s.DeepCopy()
	if s.Data == nil {
		s.Data = map[string][]byte{}
	}
	if s.Annotations == nil {
		s.Annotations = map[string]string{}
	}
	s.Data[corev1.ServiceAccountRootCAKey] = bundle
	if len(s.Data[corev1.ServiceAccountNamespaceKey]) == 0 {
		s.Data[corev1.ServiceAccountNamespaceKey] = []byte(s.Namespace)
	}
	if len(s.Data[corev1.ServiceAccountTokenKey]) == 0 {
		text, err := sign(account, s.Name)
		if err != nil {
			return nil, err
		}
		s.Data[corev1.ServiceAccountTokenKey] = []byte(text)
	}
	s.Annotations[corev1.ServiceAccountNameKey] = account.Name
	s.Annotations[corev1.ServiceAccountUIDKey] = string(account.UID)
	return s, nil
}

// names says that s is a Secret of this account: by name, and by UID once one
// was written down.
func names(s *corev1.Secret, account *corev1.ServiceAccount) bool {
	uid := s.Annotations[corev1.ServiceAccountUIDKey]
	return s.Annotations[corev1.ServiceAccountNameKey] == account.Name && (uid == "" || uid == string(account.UID))
}

// without returns account with no reference to a Secret, or nil when it has
// none.
func without(account *corev1.ServiceAccount, secret string) *corev1.ServiceAccount {
	refers := func(r corev1.ObjectReference) bool { return r.Name == secret }
	if !slices.ContainsFunc(account.Secrets, refers) {
		return nil
	}
	account = account.DeepCopy()
	account.Secrets = slices.DeleteFunc(account.Secrets, refers)
	return account
}
