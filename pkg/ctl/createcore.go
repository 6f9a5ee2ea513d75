package ctl

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"unicode/utf8"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation"
)

func (t *tool) createNamespace() *cobra.Command {
	cmd := t.generate(generator{
		use: "namespace NAME", short: "Create a namespace",
		make: func(_, name string) (runtime.Object, error) {
			return &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}, nil
		},
	})
	cmd.Aliases = []string{"ns"}
	return cmd
}

func (t *tool) createServiceAccount() *cobra.Command {
	cmd := t.generate(generator{
		use: "serviceaccount NAME", short: "Create a service account", namespaced: true,
		make: func(ns, name string) (runtime.Object, error) {
			return &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: ns}}, nil
		},
	})
	cmd.Aliases = []string{"sa"}
	return cmd
}

// sources are the flags that fill a ConfigMap or a Secret.
type sources struct {
	literals, files, envFiles []string
}

func (s *sources) add(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringArrayVar(&s.literals, "from-literal", nil, "key=value")
	f.StringSliceVar(&s.files, "from-file", nil, "file, key=file, or folder whose files are taken")
	f.StringSliceVar(&s.envFiles, "from-env-file", nil, "file of lines key=value")
}

// maxSource is the size above which an object is not accepted anyway.
const maxSource = 1 << 20

func (s *sources) read() (map[string][]byte, error) {
	out := map[string][]byte{}
	set := func(key string, value []byte) error {
		if _, ok := out[key]; ok {
			return fmt.Errorf("the key %q is given twice", key)
		}
		if errs := validation.IsConfigMapKey(key); len(errs) > 0 {
			return fmt.Errorf("%q cannot be a key: %s", key, strings.Join(errs, "; "))
		}
		out[key] = value
		return nil
	}
	for _, l := range s.literals {
		k, v, ok := strings.Cut(l, "=")
		if !ok {
			return nil, usagef("--from-literal %q is not of the form key=value", l)
		}
		if err := set(k, []byte(v)); err != nil {
			return nil, err
		}
	}
	for _, f := range s.files {
		if err := addFile(f, set); err != nil {
			return nil, err
		}
	}
	for _, f := range s.envFiles {
		if err := addEnvFile(f, set); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// addFile takes FILE, KEY=FILE or a folder's files.
func addFile(arg string, set func(string, []byte) error) error {
	key, path, named := strings.Cut(arg, "=")
	if !named {
		key, path = filepath.Base(arg), arg
	}
	st, err := os.Stat(path)
	if err != nil {
		return fmt.Errorf("--from-file: %w", err)
	}
	if !st.IsDir() {
		data, err := readSource(path)
		if err != nil {
			return err
		}
		return set(key, data)
	}
	if named {
		return usagef("--from-file %s: a folder cannot have a key, its files have their names", arg)
	}
	entries, err := os.ReadDir(path)
	if err != nil {
		return fmt.Errorf("--from-file: %w", err)
	}
	for _, e := range entries {
		if e.Type()&fs.ModeType != 0 {
			continue // folders, links and the like
		}
		data, err := readSource(filepath.Join(path, e.Name()))
		if err != nil {
			return err
		}
		if err := set(e.Name(), data); err != nil {
			return err
		}
	}
	return nil
}

func readSource(path string) ([]byte, error) {
	st, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if st.Size() > maxSource {
		return nil, fmt.Errorf("%s has %d bytes: an object holds at most %d", path, st.Size(), maxSource)
	}
	return os.ReadFile(path)
}

func addEnvFile(path string, set func(string, []byte) error) error {
	data, err := readSource(path)
	if err != nil {
		return fmt.Errorf("--from-env-file: %w", err)
	}
	for i, line := range bytes.Split(data, []byte("\n")) {
		text := strings.TrimLeft(strings.TrimSuffix(string(line), "\r"), " \t")
		if text == "" || text[0] == '#' {
			continue
		}
		k, v, ok := strings.Cut(text, "=")
		if !ok {
			v = os.Getenv(k)
		}
		if err := set(k, []byte(v)); err != nil {
			return fmt.Errorf("%s line %d: %w", path, i+1, err)
		}
	}
	return nil
}

func (t *tool) createConfigMap() *cobra.Command {
	var s sources
	cmd := t.generate(generator{
		use: "configmap NAME", short: "Create a ConfigMap from literals and files", namespaced: true,
		example: "  ctl create configmap settings --from-literal=colour=blue --from-file=motd.txt",
		make: func(ns, name string) (runtime.Object, error) {
			data, err := s.read()
			if err != nil {
				return nil, err
			}
			cm := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: ns}}
			for k, v := range data {
				if utf8.Valid(v) {
					if cm.Data == nil {
						cm.Data = map[string]string{}
					}
					cm.Data[k] = string(v)
					continue
				}
				if cm.BinaryData == nil {
					cm.BinaryData = map[string][]byte{}
				}
				cm.BinaryData[k] = v
			}
			return cm, nil
		},
	})
	cmd.Aliases = []string{"cm"}
	s.add(cmd)
	return cmd
}

func (t *tool) createSecret() *cobra.Command {
	cmd := &cobra.Command{Use: "secret", Short: "Create a Secret: generic or tls"}
	cmd.AddCommand(t.createGenericSecret(), t.createTLSSecret())
	return cmd
}

func (t *tool) createGenericSecret() *cobra.Command {
	var s sources
	var kind string
	cmd := t.generate(generator{
		use: "generic NAME", short: "Create a Secret from literals and files", namespaced: true,
		make: func(ns, name string) (runtime.Object, error) {
			data, err := s.read()
			if err != nil {
				return nil, err
			}
			return &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: ns}, Data: data, Type: corev1.SecretType(kind)}, nil
		},
	})
	s.add(cmd)
	cmd.Flags().StringVar(&kind, "type", "", "type of the Secret; empty means Opaque")
	return cmd
}

func (t *tool) createTLSSecret() *cobra.Command {
	var cert, key string
	cmd := t.generate(generator{
		use: "tls NAME", short: "Create a Secret from a certificate and its key", namespaced: true,
		make: func(ns, name string) (runtime.Object, error) {
			if cert == "" || key == "" {
				return nil, usagef("give both --cert FILE and --key FILE")
			}
			if _, err := tls.LoadX509KeyPair(cert, key); err != nil {
				return nil, fmt.Errorf("the certificate and the key do not fit together: %w", err)
			}
			certData, err := readSource(cert)
			if err != nil {
				return nil, err
			}
			keyData, err := readSource(key)
			if err != nil {
				return nil, err
			}
			return &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: ns}, Type: corev1.SecretTypeTLS,
				Data: map[string][]byte{corev1.TLSCertKey: certData, corev1.TLSPrivateKeyKey: keyData}}, nil
		},
	})
	cmd.Flags().StringVar(&cert, "cert", "", "file of the certificate (PEM)")
	cmd.Flags().StringVar(&key, "key", "", "file of its private key (PEM)")
	return cmd
}
