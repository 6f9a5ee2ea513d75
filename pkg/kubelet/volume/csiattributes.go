package volume

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// csiTokensKey is the attribute, or secret, with the tokens that a driver asks for.
const csiTokensKey = "csi.storage.k8s.io/serviceAccount.tokens"

// podInfo is what a driver learns of the pod if it wants to.
func podInfo(pod *corev1.Pod, lifecycle storagev1.VolumeLifecycleMode) map[string]string {
	return map[string]string{
		"csi.storage.k8s.io/pod.name":            pod.Name,
		"csi.storage.k8s.io/pod.namespace":       pod.Namespace,
		"csi.storage.k8s.io/pod.uid":             string(pod.UID),
		"csi.storage.k8s.io/serviceAccount.name": pod.Spec.ServiceAccountName,
		"csi.storage.k8s.io/ephemeral":           strconv.FormatBool(lifecycle == storagev1.VolumeLifecycleEphemeral),
	}
}

// csiSecrets reads a Secret for a driver; nil gives none.
func (m *Manager) csiSecrets(ctx context.Context, ref *corev1.SecretReference) (map[string]string, error) {
	if ref == nil {
		return nil, nil
	}
	secret, err := m.Secret(ctx, ref.Namespace, ref.Name)
	if err != nil {
		return nil, fmt.Errorf("fetching the driver's secret %s/%s failed: %w", ref.Namespace, ref.Name, err)
	}
	out := make(map[string]string, len(secret.Data))
	for key, value := range secret.Data {
		out[key] = string(value)
	}
	return out, nil
}

// csiTokens gives tokens of the pod's service account, one for each audience that
// the driver asks for, as an object of JSON; "" if it asks for none.
func (m *Manager) csiTokens(ctx context.Context, pod *corev1.Pod, requests []storagev1.TokenRequest) (string, error) {
	if len(requests) == 0 {
		return "", nil
	}
	tokens := make(map[string]authenticationv1.TokenRequestStatus, len(requests))
	for _, req := range requests {
		key := podToken(pod, req.Audience, req.ExpirationSeconds)
		value, expires, err := m.tokens.get(ctx, key)
		if err != nil {
			return "", fmt.Errorf("token of service account %q: %w", key.account, err)
		}
		tokens[req.Audience] = authenticationv1.TokenRequestStatus{Token: value, ExpirationTimestamp: metav1.NewTime(expires)}
	}
	data, err := json.Marshal(tokens)
	return string(data), err
}
