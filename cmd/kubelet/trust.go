package main

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"sync/atomic"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"

	"coracle/pkg/nodeconfig"
	"coracle/pkg/pki"
)

const (
	// readEvery is the time between two looks at the files with authorities. Each
	// learnEach time, the cluster is asked what they are, within learnLimit.
	readEvery  = 10 * time.Second
	learnEach  = 6
	learnLimit = 30 * time.Second
	// bundleSigner is the name under which a cluster publishes the authority of its
	// API server.
	bundleSigner = "kubernetes.io/kube-apiserver-serving"
)

// trust is in whom the agent believes. The files say it: a cluster's authority is
// replaced while agents run.
type trust struct {
	conf *nodeconfig.Kubelet
	log  *slog.Logger
	// callers are the authorities of those who call the agent, server those of the
	// API server, none when the kubeconfig names none.
	callers, server pki.LivePool
	// known are those of callers, the one that signs first.
	known atomic.Pointer[[]*x509.Certificate]
	// every is the time between two looks at the files; changed, which may be nil,
	// is told when they have changed. Set before run.
	every   time.Duration
	changed func()
}

// newTrust reads the files.
func newTrust(conf *nodeconfig.Kubelet, log *slog.Logger) (*trust, error) {
	t := &trust{conf: conf, log: log, every: readEvery}
	return t, t.read()
}

// read puts into force what the files say. What has not changed stays the same.
func (t *trust) read() error {
	data, err := os.ReadFile(t.conf.ClientCAFile)
	if err != nil {
		return fmt.Errorf("read the authority of the API server: %w", err)
	}
	certs, err := pki.ParseCertificates(data)
	if err != nil {
		return fmt.Errorf("%s holds no certificate: %w", t.conf.ClientCAFile, err)
	}
	if known := t.known.Load(); known == nil || !slices.EqualFunc(*known, certs, (*x509.Certificate).Equal) {
		if err := t.callers.Set(data); err != nil {
			return err
		}
		t.known.Store(&certs)
		if t.changed != nil {
			t.changed()
		}
	}
	return t.readServer()
}

// readServer reads the authority in the kubeconfig, if there is one yet.
func (t *trust) readServer() error {
	if _, err := os.Stat(t.conf.Kubeconfig); err != nil {
		return nil // newIdentity makes it, or says what is missing
	}
	config, err := ownConfig(t.conf.Kubeconfig)
	if err != nil {
		return err
	}
	bundle := config.CAData
	if len(bundle) == 0 && config.CAFile != "" {
		if bundle, err = os.ReadFile(config.CAFile); err != nil {
			return fmt.Errorf("read the authority of the API server: %w", err)
		}
	}
	if len(bundle) == 0 {
		return nil
	}
	return t.server.SetChanged(bundle)
}

// roots are the authorities of the API server; nil are those of the system.
func (t *trust) roots() *x509.CertPool { return t.server.Pool() }

// authorities are those that the cluster has, the one that signs first.
func (t *trust) authorities() []*x509.Certificate { return *t.known.Load() }

// run follows the files until ctx ends, and for a node that joined by itself, what
// the cluster says.
func (t *trust) run(ctx context.Context, client kubernetes.Interface) error {
	tick := time.NewTicker(t.every)
	defer tick.Stop()
	for n := 1; ; n++ {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if t.conf.BootstrapKubeconfig != "" && n%learnEach == 0 {
			if err := t.learn(ctx, client); err != nil && ctx.Err() == nil {
				t.log.Warn("the cluster's authority cannot be looked up", "error", err)
			}
		}
		if err := t.read(); err != nil {
			t.log.Error("changed authorities are not in force: those that were read before stay", "error", err)
		}
	}
}

// learn asks the API server, which the agent believes, for the cluster's
// authorities, and writes those into the files. Files of other authorities are
// somebody else's.
func (t *trust) learn(ctx context.Context, client kubernetes.Interface) error {
	ctx, cancel := context.WithTimeout(ctx, learnLimit)
	defer cancel()
	list, err := client.CertificatesV1().ClusterTrustBundles().List(ctx, metav1.ListOptions{
		FieldSelector: fields.OneTermEqualSelector("spec.signerName", bundleSigner).String()})
	if err != nil {
		return err
	}
	told := newest(list.Items)
	if told == nil {
		return nil
	}
	certs, err := pki.ParseCertificates([]byte(told.Spec.TrustBundle))
	if err != nil {
		return fmt.Errorf("ClusterTrustBundle %s: %w", told.Name, err)
	}
	known := t.authorities()
	if slices.EqualFunc(known, certs, (*x509.Certificate).Equal) || !overlap(known, certs) {
		return nil
	}
	bundle := []byte(told.Spec.TrustBundle)
	t.log.Info("the cluster has other authorities", "authorities", len(certs), "file", t.conf.ClientCAFile)
	// The agent's own connection first: by it, it can ask again.
	return errors.Join(t.writeServer(bundle), pki.WriteFile(t.conf.ClientCAFile, bundle, 0o644))
}

// writeServer puts a bundle where the kubeconfig has its authority.
func (t *trust) writeServer(bundle []byte) error {
	config, err := clientcmd.LoadFromFile(t.conf.Kubeconfig)
	if err != nil {
		return err
	}
	changed := false
	for _, c := range config.Clusters {
		if len(c.CertificateAuthorityData) > 0 && !bytes.Equal(c.CertificateAuthorityData, bundle) {
			c.CertificateAuthorityData, changed = bundle, true
		}
	}
	if !changed {
		return nil
	}
	data, err := clientcmd.Write(*config)
	if err != nil {
		return err
	}
	return pki.WriteFile(t.conf.Kubeconfig, data, 0o600)
}

// newest is the last of the bundles, which there are two of for a moment.
func newest(list []certificatesv1.ClusterTrustBundle) *certificatesv1.ClusterTrustBundle {
	var out *certificatesv1.ClusterTrustBundle
	for i := range list {
		if out == nil || out.CreationTimestamp.Before(&list[i].CreationTimestamp) {
			out = &list[i]
		}
	}
	return out
}

func overlap(a, b []*x509.Certificate) bool {
	return slices.ContainsFunc(a, func(c *x509.Certificate) bool { return slices.ContainsFunc(b, c.Equal) })
}
