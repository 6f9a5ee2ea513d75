package serviceaccounttoken

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/cache"

	"coracle/pkg/reconcile"
)

// What the API server notes of tokens that are kept in Secrets, and obeys.
const (
	invalidSince = "kubernetes.io/legacy-token-invalid-since"
	lastUsed     = "kubernetes.io/legacy-token-last-used"
	dateLayout   = time.DateOnly
	// trackingName is the ConfigMap in kube-system whose trackingSince is the day
	// since when uses are noted.
	trackingName  = "kube-apiserver-legacy-service-account-token-tracking"
	trackingSince = "since"
)

const (
	// unusedLimit is how long a token may lie unused before it is marked, and
	// then how long until it goes.
	unusedLimit = 365 * 24 * time.Hour
	// cleanEvery is the time between two looks at all tokens.
	cleanEvery = 24 * time.Hour
	// pageSize is how many Secrets are asked for at once.
	pageSize = 500
)

// Cleaner ends tokens that a controller of old made for each account, and that
// nobody uses. Make it with NewCleaner.
type Cleaner struct {
	env      reconcile.Env
	mounts   func(*corev1.Pod) []string
	pods     cache.SharedIndexInformer
	accounts cache.SharedIndexInformer
	loop     *reconcile.Loop
}

// allTokens is the only key of the cleaner's loop.
var allTokens = reconcile.Key{Name: "tokens"}

// NewCleaner registers the controller's informers. mounts names all Secrets that
// a pod refers to, in whatever place of its spec.
func NewCleaner(env reconcile.Env, mounts func(*corev1.Pod) []string) *Cleaner {
	env = env.Defaulted()
	c := &Cleaner{
		env:      env,
		mounts:   mounts,
		pods:     env.Informers.Core().V1().Pods().Informer(),
		accounts: env.Informers.Core().V1().ServiceAccounts().Informer(),
	}
	c.loop = env.Loop("legacy-token-cleaner", c.reconcile)
	// The caches have to be there before the first look, and call for none.
	reconcile.Watch(c.loop, c.pods, func(*corev1.Pod) []reconcile.Key { return nil })
	reconcile.Watch(c.loop, c.accounts, func(*corev1.ServiceAccount) []reconcile.Key { return nil })
	c.loop.Add(allTokens)
	return c
}

// Run blocks until ctx ends.
func (c *Cleaner) Run(ctx context.Context) error { return c.loop.Run(ctx) }

func (c *Cleaner) reconcile(ctx context.Context, _ *reconcile.Request) (reconcile.Result, error) {
	again := reconcile.Result{RequeueAfter: cleanEvery}
	now := c.env.Clock.Now().UTC()
	m, err := c.env.Client.CoreV1().ConfigMaps(metav1.NamespaceSystem).Get(ctx, trackingName, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return again, nil // nobody has noted uses
	}
	if err != nil {
		return reconcile.Result{}, fmt.Errorf("read since when the use of tokens in secrets is noted: %w", err)
	}
	if !trackedLongEnough(m.Data[trackingSince], now) {
		return again, nil
	}
	options := metav1.ListOptions{Limit: pageSize,
		FieldSelector: fields.OneTermEqualSelector("type", string(corev1.SecretTypeServiceAccountToken)).String()}
	for {
		page, err := c.env.Client.CoreV1().Secrets(metav1.NamespaceAll).List(ctx, options)
		if err != nil {
			return reconcile.Result{}, fmt.Errorf("list the secrets with tokens: %w", err)
		}
		for i := range page.Items {
			if err := c.clean(ctx, &page.Items[i], now); err != nil {
				return reconcile.Result{}, err
			}
		}
		if options.Continue = page.Continue; options.Continue == "" {
			return again, nil
		}
	}
}

// clean marks or deletes one Secret, if it is time.
func (c *Cleaner) clean(ctx context.Context, s *corev1.Secret, now time.Time) error {
	due := judge(s, now)
	if due == keepIt || !c.generated(s) || c.mounted(s) {
		return nil
	}
	secrets := c.env.Client.CoreV1().Secrets(s.Namespace)
	var err error
	if due == deleteIt {
		err = secrets.Delete(ctx, s.Name, metav1.DeleteOptions{
			Preconditions: &metav1.Preconditions{UID: &s.UID, ResourceVersion: &s.ResourceVersion},
		})
	} else {
		var patch []byte
		patch, err = json.Marshal(map[string]any{"metadata": map[string]any{
			"uid": s.UID, "resourceVersion": s.ResourceVersion,
			"labels": map[string]string{invalidSince: now.Format(dateLayout)},
		}})
		if err == nil {
			_, err = secrets.Patch(ctx, s.Name, types.MergePatchType, patch, metav1.PatchOptions{})
		}
	}
	// One that has changed meanwhile is looked at again the next time.
	if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
		return fmt.Errorf("end the unused token in the secret %s/%s: %w", s.Namespace, s.Name, err)
	}
	return nil
}

// generated says that a Secret was made with its account, which lists it then,
// and not by hand.
func (c *Cleaner) generated(s *corev1.Secret) bool {
	key := reconcile.Key{Namespace: s.Namespace, Name: s.Annotations[corev1.ServiceAccountNameKey]}
	a := reconcile.Cached[*corev1.ServiceAccount](c.accounts, key)
	return a != nil && names(s, a) && without(a, s.Name) != nil
}

// mounted says that a pod refers to a Secret.
func (c *Cleaner) mounted(s *corev1.Secret) bool {
	for _, p := range reconcile.Indexed[*corev1.Pod](c.pods, cache.NamespaceIndex, s.Namespace) {
		if slices.Contains(c.mounts(p), s.Name) {
			return true
		}
	}
	return false
}

// verdict is what becomes of a token that nobody uses.
type verdict int

const (
	keepIt verdict = iota
	markIt
	deleteIt
)

// judge looks at the dates of a Secret alone. A day that cannot be read may be
// any; a mark that cannot be read is none.
func judge(s *corev1.Secret, now time.Time) verdict {
	limit := now.Add(-unusedLimit)
	if s.DeletionTimestamp != nil || !s.CreationTimestamp.Time.Before(limit) {
		return keepIt
	}
	// Dates of this layout sort as text.
	day := limit.Format(dateLayout)
	if used, ok := s.Labels[lastUsed]; ok {
		if _, err := time.Parse(dateLayout, used); err != nil || used >= day {
			return keepIt
		}
	}
	since := s.Labels[invalidSince]
	if _, err := time.Parse(dateLayout, since); err != nil {
		return markIt
	}
	if since >= day {
		return keepIt
	}
	return deleteIt
}

// trackedLongEnough says that a token without a day was not used for so long.
// The first day that is noted whole is the one after since.
func trackedLongEnough(since string, now time.Time) bool {
	at, err := time.Parse(dateLayout, since)
	return err == nil && !now.Before(at.AddDate(0, 0, 1).Add(unusedLimit))
}
