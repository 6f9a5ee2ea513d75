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
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"coracle/pkg/auth/bootstraptoken"
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
	cmd := &cobra.Command{
		Use:   "create",
		Short: "Make a token, and print the command line that joins with it",
		Long: "Make a token that lets machines ask for a node's certificate, for an hour. The command line that is printed\n" +
			"also has the hash of the cluster's authority, so that a machine joins this cluster and no other.",
		Args: between(0, 0, "none"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if life <= 0 || life > maxTokenLife {
				return usagef("--ttl must be above 0 and at most %s", maxTokenLife)
			}
			line, err := t.newToken(cmd.Context(), life, time.Now())
			if err == nil {
				fmt.Fprintln(t.Out, line)
			}
			return err
		},
	}
	cmd.Flags().DurationVar(&life, "ttl", tokenLife, "how long the token lasts")
	return cmd
}

// newToken stores a token and returns the command line that uses it.
func (t *tool) newToken(ctx context.Context, life time.Duration, now time.Time) (string, error) {
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
	_, err = client.CoreV1().ConfigMaps(bootstraptoken.ClusterInfoNamespace).Get(ctx, bootstraptoken.ClusterInfoName, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return "", errors.New("machines cannot join this cluster by token: its API server has to run with --enable-bootstrap-token-auth")
	}
	if err != nil {
		return "", err
	}
	secret := bootstraptoken.NewSecret(rand.Text(), now.Add(life))
	if _, err := client.CoreV1().Secrets(bootstraptoken.Namespace).Create(ctx, secret, metav1.CreateOptions{}); err != nil {
		return "", err
	}
	made, err := bootstraptoken.Parse(secret)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("ctl join %s --token %s.%s --ca-cert-hash %s", to.Host, made.ID, made.Secret, strings.Join(hashes, ",")), nil
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
