package image

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/distribution/reference"
	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// maxDockerConfig bounds the credentials read from one Secret, in bytes.
const maxDockerConfig = 1 << 20

// entry is one login of a docker configuration.
type entry struct {
	Username      string `json:"username"`
	Password      string `json:"password"`
	Auth          string `json:"auth"` // base64 of "user:password"
	IdentityToken string `json:"identitytoken"`
	RegistryToken string `json:"registrytoken"`
}

// credentials returns the logins of the pod's imagePullSecrets that fit the
// image, the most specific first. Secrets that are missing or broken are
// passed over, for the image may not need them.
func (m *Manager) credentials(ctx context.Context, pod *corev1.Pod, ref string) []*runtimeapi.AuthConfig {
	if m.cfg.Secret == nil || len(pod.Spec.ImagePullSecrets) == 0 {
		return nil
	}
	named, err := reference.ParseNormalizedNamed(ref)
	if err != nil {
		return nil
	}
	all := map[string]entry{}
	for _, r := range pod.Spec.ImagePullSecrets {
		secret, err := m.cfg.Secret(ctx, pod.Namespace, r.Name)
		if err == nil {
			err = decodeSecret(secret, all)
		}
		if err != nil {
			m.cfg.Log.Warn("image pull secret is not usable", "namespace", pod.Namespace, "secret", r.Name, "error", err)
		}
	}
	return fitting(all, reference.Domain(named), reference.Path(named))
}

func decodeSecret(secret *corev1.Secret, into map[string]entry) error {
	switch {
	case len(secret.Data[corev1.DockerConfigJsonKey]) > 0:
		return decodeConfig(secret.Data[corev1.DockerConfigJsonKey], true, into)
	case len(secret.Data[corev1.DockerConfigKey]) > 0:
		return decodeConfig(secret.Data[corev1.DockerConfigKey], false, into)
	}
	return fmt.Errorf("it has neither the key %s nor %s", corev1.DockerConfigJsonKey, corev1.DockerConfigKey)
}

// decodeConfig reads a docker configuration: with the "auths" level of
// config.json, or without it as in the older .dockercfg.
func decodeConfig(data []byte, nested bool, into map[string]entry) error {
	if len(data) > maxDockerConfig {
		return fmt.Errorf("the configuration has %d bytes, more than %d", len(data), maxDockerConfig)
	}
	var entries map[string]entry
	var err error
	if nested {
		var config struct {
			Auths map[string]entry `json:"auths"`
		}
		err = json.Unmarshal(data, &config)
		entries = config.Auths
	} else {
		err = json.Unmarshal(data, &entries)
	}
	if err != nil {
		return errors.New("the configuration is not valid JSON") // the cause may quote a password
	}
	for registry, e := range entries {
		if e.Username == "" && e.Auth != "" {
			plain, err := base64.StdEncoding.DecodeString(e.Auth)
			user, password, ok := strings.Cut(string(plain), ":")
			if err != nil || !ok {
				return fmt.Errorf("the login for %q is not base64 of user:password", registry)
			}
			e.Username, e.Password = user, strings.TrimRight(password, "\x00")
		}
		into[registry] = e
	}
	return nil
}

// fitting selects the logins for one repository, longest match first.
func fitting(all map[string]entry, host, repository string) []*runtimeapi.AuthConfig {
	var names []string
	for name := range all {
		if fits(name, host, repository) {
			names = append(names, name)
		}
	}
	slices.SortFunc(names, func(a, b string) int {
		if len(a) != len(b) {
			return len(b) - len(a)
		}
		return strings.Compare(a, b)
	})
	var out []*runtimeapi.AuthConfig
	for _, name := range names {
		e := all[name]
		out = append(out, &runtimeapi.AuthConfig{
			Username: e.Username, Password: e.Password, IdentityToken: e.IdentityToken, RegistryToken: e.RegistryToken,
		})
	}
	return out
}

// fits tells whether a login named by registry, with an optional path and with
// "*" for labels of the host, serves a repository.
func fits(name, host, repository string) bool {
	name = strings.TrimPrefix(strings.TrimPrefix(name, "https://"), "http://")
	wantHost, wantPath, _ := strings.Cut(name, "/")
	switch wantHost {
	case "index.docker.io", "registry-1.docker.io":
		wantHost = "docker.io"
	}
	wantPath = strings.Trim(wantPath, "/")
	if wantPath == "v1" || wantPath == "v2" {
		wantPath = ""
	}
	if strings.Count(wantHost, ".") != strings.Count(host, ".") {
		return false
	}
	if ok, err := path.Match(wantHost, host); err != nil || !ok {
		return false
	}
	return wantPath == "" || repository == wantPath || strings.HasPrefix(repository, wantPath+"/")
}
