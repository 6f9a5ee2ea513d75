package admission

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"coracle/pkg/auth/node"
)

const (
	defaultAccount = "default"
	// tokenMountPath is where every client library looks for its credentials.
	tokenMountPath = "/var/run/secrets/kubernetes.io/serviceaccount"
	// tokenVolumePrefix begins the name of the volume that is added.
	tokenVolumePrefix = "kube-api-access-"
	// tokenSeconds is the life of a mounted token: an hour and some minutes,
	// so that it is renewed once an hour.
	tokenSeconds = 3607
	rootCAName   = "kube-root-ca.crt"
)

// ServiceAccount gives pods their service account and mounts its token,
// unless they or the account opt out.
type ServiceAccount struct {
	Objects Objects
	// CreateDefault makes a namespace's default account when a pod needs it
	// before the controller has made it, or where no controller runs. It may
	// be called for an account that exists by then.
	CreateDefault func(ctx context.Context, namespace string) error
	// Suffix returns the random end of the added volume's name.
	Suffix func() (string, error)
	// WhenAsked mounts a token only where the pod or its account asks for it.
	WhenAsked bool
}

// Name implements Plugin.
func (ServiceAccount) Name() string { return "ServiceAccount" }

// Handles implements Selective.
func (ServiceAccount) Handles(r schema.GroupResource) bool {
	return isPods(r)
}

// Admit implements Mutator.
func (p ServiceAccount) Admit(ctx context.Context, a *Attributes) error {
	pod, ok := isPod(a)
	if !ok || a.Operation != Create {
		return nil
	}
	if _, mirror := pod.Annotations[corev1.MirrorPodAnnotationKey]; mirror {
		return nil // Validate refuses what mirror pods may not have
	}
	if pod.Spec.ServiceAccountName == "" {
		pod.Spec.ServiceAccountName = defaultAccount
	}
	pod.Spec.DeprecatedServiceAccount = pod.Spec.ServiceAccountName
	account, err := p.account(ctx, a)
	if err != nil {
		return err
	}
	if p.automounts(pod, account) {
		if err := p.mountToken(pod); err != nil {
			return apierrors.NewInternalError(err)
		}
	}
	if len(pod.Spec.ImagePullSecrets) == 0 {
		pod.Spec.ImagePullSecrets = append(pod.Spec.ImagePullSecrets, account.ImagePullSecrets...)
	}
	return nil
}

// account finds the pod's service account.
func (p ServiceAccount) account(ctx context.Context, a *Attributes) (*corev1.ServiceAccount, error) {
	name := a.Object.(*corev1.Pod).Spec.ServiceAccountName
	account, err := get[*corev1.ServiceAccount](ctx, p.Objects, accountGVR, a.Namespace, name)
	if apierrors.IsNotFound(err) && name == defaultAccount && !a.DryRun {
		if err := p.CreateDefault(ctx, a.Namespace); err != nil && !apierrors.IsAlreadyExists(err) {
			return nil, err
		}
		account, err = get[*corev1.ServiceAccount](ctx, p.Objects, accountGVR, a.Namespace, name)
	}
	if err != nil {
		return nil, apierrors.NewForbidden(a.Resource.GroupResource(), a.Name,
			fmt.Errorf("error looking up service account %s/%s: %w", a.Namespace, name, err))
	}
	return account, nil
}

// mountableAnnotation on a service account limits its pods to the secrets that
// it lists.
const mountableAnnotation = "kubernetes.io/enforce-mountable-secrets"

// Validate implements Validator: mirror pods, which nobody asks the API server
// for, refer to nothing of it; and the secrets of a pod are those of its
// account where the account says so.
func (p ServiceAccount) Validate(ctx context.Context, a *Attributes) error {
	pod, ok := bringsContainers(a)
	if !ok || a.Operation != Create && (a.Operation != Update || a.Subresource == "") {
		return nil
	}
	pull, others := node.Secrets(pod)
	if _, mirror := pod.Annotations[corev1.MirrorPodAnnotationKey]; mirror {
		switch {
		case pod.Spec.ServiceAccountName != "":
			return forbidden(a, errors.New("a mirror pod may not reference service accounts"))
		case len(pull)+len(others) > 0:
			return forbidden(a, errors.New("a mirror pod may not reference secrets"))
		case slices.ContainsFunc(pod.Spec.Volumes, projectsToken):
			return forbidden(a, errors.New("a mirror pod may not use ServiceAccountToken volume projections"))
		}
		return nil
	}
	account, err := get[*corev1.ServiceAccount](ctx, p.Objects, accountGVR, a.Namespace, pod.Spec.ServiceAccountName)
	if apierrors.IsNotFound(err) && (a.DryRun || a.Operation == Update) {
		return nil // it was made for this request, or has gone since
	}
	if err != nil {
		return forbidden(a, fmt.Errorf("error looking up service account %s/%s: %w", a.Namespace, pod.Spec.ServiceAccountName, err))
	}
	if limited, err := strconv.ParseBool(account.Annotations[mountableAnnotation]); err != nil || !limited {
		return nil
	}
	for _, name := range others {
		if !slices.ContainsFunc(account.Secrets, func(r corev1.ObjectReference) bool { return r.Name == name }) {
			return forbidden(a, fmt.Errorf("secret.secretName=%q is not allowed because service account %s does not reference that secret", name, account.Name))
		}
	}
	for _, name := range pull {
		if !slices.ContainsFunc(account.ImagePullSecrets, func(r corev1.LocalObjectReference) bool { return r.Name == name }) {
			return forbidden(a, fmt.Errorf("imagePullSecrets.name=%q is not allowed because service account %s does not reference that imagePullSecret", name, account.Name))
		}
	}
	return nil
}

func projectsToken(v corev1.Volume) bool {
	return v.Projected != nil && slices.ContainsFunc(v.Projected.Sources, func(s corev1.VolumeProjection) bool { return s.ServiceAccountToken != nil })
}

// automounts: the pod decides when it says, else the account, else the cluster.
func (p ServiceAccount) automounts(pod *corev1.Pod, account *corev1.ServiceAccount) bool {
	switch {
	case pod.Spec.AutomountServiceAccountToken != nil:
		return *pod.Spec.AutomountServiceAccountToken
	case account.AutomountServiceAccountToken != nil:
		return *account.AutomountServiceAccountToken
	}
	return !p.WhenAsked
}

// mountToken adds the volume with token, authority and namespace, and mounts
// it in each container that has nothing at that path.
func (p ServiceAccount) mountToken(pod *corev1.Pod) error {
	volume := ""
	for i := range pod.Spec.Volumes {
		if isTokenVolume(&pod.Spec.Volumes[i]) {
			volume = pod.Spec.Volumes[i].Name
		}
	}
	added := volume == ""
	if added {
		suffix, err := p.Suffix()
		if err != nil {
			return err
		}
		volume = tokenVolumePrefix + suffix
	}
	used := false
	for _, list := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for i := range list {
			c := &list[i]
			if mountsAt(c, tokenMountPath) {
				continue
			}
			c.VolumeMounts = append(c.VolumeMounts, corev1.VolumeMount{Name: volume, ReadOnly: true, MountPath: tokenMountPath})
			used = true
		}
	}
	if added && used {
		pod.Spec.Volumes = append(pod.Spec.Volumes, tokenVolume(volume))
	}
	return nil
}

func isTokenVolume(v *corev1.Volume) bool {
	return len(v.Name) > len(tokenVolumePrefix) && v.Name[:len(tokenVolumePrefix)] == tokenVolumePrefix && v.Projected != nil
}

func mountsAt(c *corev1.Container, path string) bool {
	for _, m := range c.VolumeMounts {
		if m.MountPath == path {
			return true
		}
	}
	return false
}

func tokenVolume(name string) corev1.Volume {
	return corev1.Volume{Name: name, VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{
		DefaultMode: new(corev1.ProjectedVolumeSourceDefaultMode),
		Sources: []corev1.VolumeProjection{
			{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Path: "token", ExpirationSeconds: new(int64(tokenSeconds))}},
			{ConfigMap: &corev1.ConfigMapProjection{
				LocalObjectReference: corev1.LocalObjectReference{Name: rootCAName},
				Items:                []corev1.KeyToPath{{Key: "ca.crt", Path: "ca.crt"}},
			}},
			{DownwardAPI: &corev1.DownwardAPIProjection{Items: []corev1.DownwardAPIVolumeFile{{
				Path: "namespace", FieldRef: &corev1.ObjectFieldSelector{APIVersion: "v1", FieldPath: "metadata.namespace"},
			}}}},
		},
	}}}
}
