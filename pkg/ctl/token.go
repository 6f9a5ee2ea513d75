package ctl

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"coracle/pkg/auth/bootstraptoken"
	"coracle/pkg/cluster"
	"coracle/pkg/pki"
)

// tokenLife is how long a token to join lasts, maxTokenLife how long one may be
// asked to.
const (
	tokenLife    = time.Hour
	maxTokenLife = 24 * time.Hour
)

func (t *tool) token() *cobra.Command {
	cmd := &cobra.Command{Use: "token", Short: "Make tokens with which machines join the cluster as nodes"}
	cmd.AddCommand(t.tokenCreate())
	return cmd
}

func (t *tool) tokenCreate() *cobra.Command {
	var life time.Duration
	var limits bootstraptoken.Limits
	var reusable bool
	cmd := &cobra.Command{
		Use:   "create",
		Short: "Make a token, and print the command line that joins with it",
		Long: "Make a token that lets a machine ask for a node's certificate, for an hour. The first machine that asks with\n" +
			"it is the only one that it lets in, unless --machines or --reusable says otherwise. The command line that is\n" +
			"printed also has the hash of the cluster's authority, so that a machine joins this cluster and no other.",
		Args: between(0, 0, "none"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if life <= 0 || life > maxTokenLife {
				return usagef("--ttl must be above 0 and at most %s", maxTokenLife)
			}
			switch {
			case reusable && cmd.Flags().Changed("machines"):
				return usagef("--reusable is for any number of machines: leave out --machines")
			case reusable:
				limits.Machines = 0
			case limits.Machines < 1 || limits.Machines > bootstraptoken.MaxMachines:
				return usagef("--machines must be from 1 to %d", bootstraptoken.MaxMachines)
			}
			line, err := t.newToken(cmd.Context(), life, limits, time.Now())
			if err == nil {
				fmt.Fprintln(t.Out, line)
			}
			return err
		},
	}
	f := cmd.Flags()
	f.DurationVar(&life, "ttl", tokenLife, "how long the token lasts")
	f.IntVar(&limits.Machines, "machines", 1, "how many machines the token lets in")
	f.BoolVar(&reusable, "reusable", false, "let in any number of machines while the token lasts")
	f.StringVar(&limits.Node, "node", "", "the only name of a node that may be joined as")
	return cmd
}

// newToken stores a token and returns the command line that uses it.
func (t *tool) newToken(ctx context.Context, life time.Duration, limits bootstraptoken.Limits, now time.Time) (string, error) {
	config, err := t.config()
	if err != nil {
		return "", err
	}
	client, err := t.client()
	if err != nil {
		return "", err
	}
	to, err := url.Parse(config.Host)
	if err != nil || to.Host == "" {
		return "", fmt.Errorf("the server %q of the kubeconfig is no URL", config.Host)
	}
	hashes, err := authorityHashes(config)
	if err != nil {
		return "", err
	}
	info, err := client.CoreV1().ConfigMaps(bootstraptoken.ClusterInfoNamespace).Get(ctx, bootstraptoken.ClusterInfoName, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return "", errors.New("machines cannot join this cluster by token: its API server has to run with --enable-bootstrap-token-auth")
	}
	if err != nil {
		return "", err
	}
	server, err := t.joinAddress(to.Host, info)
	if err != nil {
		return "", err
	}
	secret := bootstraptoken.NewSecret(rand.Text(), now.Add(life), limits)
	if _, err := client.CoreV1().Secrets(bootstraptoken.Namespace).Create(ctx, secret, metav1.CreateOptions{}); err != nil {
		return "", err
	}
	made, err := bootstraptoken.Parse(secret)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("ctl join %s --token %s.%s --ca-cert-hash %s", server, made.ID, made.Secret, strings.Join(hashes, ",")), nil
}

// joinAddress is where machines reach the server. The user of a local cluster
// reaches it on the loopback; it listens on the cluster's bridge for all others.
func (t *tool) joinAddress(own string, info *corev1.ConfigMap) (string, error) {
	raw, err := t.flags.ToRawKubeConfigLoader().RawConfig()
	if err != nil {
		return "", err
	}
	name := raw.CurrentContext
	if *t.flags.Context != "" {
		name = *t.flags.Context
	}
	if !cluster.IsLocal(raw.Contexts[name]) {
		return own, nil
	}
	told, err := clientcmd.Load([]byte(info.Data[bootstraptoken.KubeconfigKey]))
	if err != nil {
		return "", fmt.Errorf("what the cluster says of itself cannot be read: %w", err)
	}
	for _, c := range told.Clusters {
		if to, err := url.Parse(c.Server); err == nil && to.Host != "" {
			return to.Host, nil
		}
	}
	return own, nil
}

// authorityHashes are those of the authorities by which the kubeconfig knows
// the server.
func authorityHashes(config *rest.Config) ([]string, error) {
	if err := rest.LoadTLSFiles(config); err != nil {
		return nil, err
	}
	if len(config.CAData) == 0 {
		return nil, errors.New("the kubeconfig does not name the cluster's authority, whose hash a machine that joins needs")
	}
	certs, err := pki.ParseCertificates(config.CAData)
	if err != nil {
		return nil, fmt.Errorf("the authority in the kubeconfig cannot be read: %w", err)
	}
	var out []string
	for _, c := range certs {
		out = append(out, keyHash(c))
	}
	return out, nil
}
