// Package bootstrap keeps the tokens with which machines join: it removes those
// that have ended, and signs the ConfigMap cluster-info with the others, so
// that a machine that knows a token can tell the true cluster-info from a
// forged one before it trusts anything.
//
// Both controllers read the Secrets of tokens alone, each under its own
// identity, and not through the process's shared informers, which would hold
// all Secrets of the cluster.
package bootstrap

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	coreinformers "k8s.io/client-go/informers/core/v1"
	"k8s.io/client-go/tools/cache"

	"coracle/pkg/auth/bootstraptoken"
	"coracle/pkg/reconcile"
)

// tokenSecrets informs of the Secrets of tokens.
func tokenSecrets(env reconcile.Env) cache.SharedIndexInformer {
	return coreinformers.NewFilteredSecretInformer(env.Client, bootstraptoken.Namespace, 0, cache.Indexers{},
		func(o *metav1.ListOptions) {
			o.FieldSelector = fields.OneTermEqualSelector("type", string(bootstraptoken.SecretType)).String()
			reconcile.ConsistentLists(o)
		})
}

// run runs a loop with the informer that it alone reads.
func run(ctx context.Context, secrets cache.SharedIndexInformer, loop *reconcile.Loop) error {
	reading, stop := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		secrets.RunWithContext(reading)
	}()
	err := loop.Run(ctx)
	stop()
	<-done
	return err
}

// Cleaner removes tokens that have ended. Make it with NewCleaner.
type Cleaner struct {
	env     reconcile.Env
	secrets cache.SharedIndexInformer
	loop    *reconcile.Loop
}

// NewCleaner makes the controller.
func NewCleaner(env reconcile.Env) *Cleaner {
	env = env.Defaulted()
	c := &Cleaner{env: env, secrets: tokenSecrets(env)}
	c.loop = env.Loop("token-cleaner", c.reconcile)
	reconcile.Watch(c.loop, c.secrets, reconcile.Self[*corev1.Secret])
	return c
}

// Run blocks until ctx ends.
func (c *Cleaner) Run(ctx context.Context) error { return run(ctx, c.secrets, c.loop) }

func (c *Cleaner) reconcile(ctx context.Context, req *reconcile.Request) (reconcile.Result, error) {
	s := reconcile.Cached[*corev1.Secret](c.secrets, req.Key)
	if s == nil || s.DeletionTimestamp != nil {
		return reconcile.Result{}, nil
	}
	left, ends := remaining(s, c.env.Clock.Now())
	if !ends {
		return reconcile.Result{}, nil
	}
	if left > 0 {
		return reconcile.Result{RequeueAfter: left}, nil
	}
	// Whoever has prolonged the token meanwhile keeps it.
	err := c.env.Client.CoreV1().Secrets(s.Namespace).Delete(ctx, s.Name, metav1.DeleteOptions{
		Preconditions: &metav1.Preconditions{UID: &s.UID, ResourceVersion: &s.ResourceVersion},
	})
	if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
		return reconcile.Result{}, fmt.Errorf("remove the ended bootstrap token %s: %w", s.Name, err)
	}
	return reconcile.Result{}, nil
}

// Signer keeps the signatures of cluster-info. Make it with NewSigner.
type Signer struct {
	env        reconcile.Env
	secrets    cache.SharedIndexInformer
	configMaps cache.SharedIndexInformer
	loop       *reconcile.Loop
}

// clusterInfo is the only key of the signer's loop.
var clusterInfo = reconcile.Key{Namespace: bootstraptoken.ClusterInfoNamespace, Name: bootstraptoken.ClusterInfoName}

// NewSigner makes the controller and registers its informer of ConfigMaps.
func NewSigner(env reconcile.Env) *Signer {
	env = env.Defaulted()
	c := &Signer{env: env, secrets: tokenSecrets(env), configMaps: env.Informers.Core().V1().ConfigMaps().Informer()}
	c.loop = env.Loop("bootstrap-signer", c.reconcile)
	reconcile.Watch(c.loop, c.secrets, func(*corev1.Secret) []reconcile.Key { return []reconcile.Key{clusterInfo} })
	reconcile.Watch(c.loop, c.configMaps, func(m *corev1.ConfigMap) []reconcile.Key {
		if reconcile.KeyOf(m) != clusterInfo {
			return nil
		}
		return []reconcile.Key{clusterInfo}
	})
	return c
}

// Run blocks until ctx ends.
func (c *Signer) Run(ctx context.Context) error { return run(ctx, c.secrets, c.loop) }

func (c *Signer) reconcile(ctx context.Context, req *reconcile.Request) (reconcile.Result, error) {
	have := reconcile.Cached[*corev1.ConfigMap](c.configMaps, clusterInfo)
	if have == nil {
		return reconcile.Result{}, nil // whoever made the cluster publishes it, or not
	}
	var secrets []*corev1.Secret
	for _, obj := range c.secrets.GetStore().List() {
		if s, ok := obj.(*corev1.Secret); ok {
			secrets = append(secrets, s)
		}
	}
	now := c.env.Clock.Now()
	want, next, problems := sign(have, secrets, now)
	if problems != nil {
		c.env.Log.Warn("bootstrap tokens that are not valid sign nothing", "error", problems)
	}
	var result reconcile.Result
	if !next.IsZero() {
		result.RequeueAfter = next.Sub(now)
	}
	if want == nil {
		return result, nil
	}
	got, err := c.env.Client.CoreV1().ConfigMaps(want.Namespace).Update(ctx, want, metav1.UpdateOptions{})
	switch {
	case err == nil:
		req.Wrote(c.configMaps, got)
	case apierrors.IsNotFound(err):
	default:
		return reconcile.Result{}, fmt.Errorf("sign %s: %w", bootstraptoken.ClusterInfoName, err)
	}
	return result, nil
}
