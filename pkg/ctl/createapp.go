package ctl

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	appsv1 "k8s.io/api/apps/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
)

func (t *tool) createDeployment() *cobra.Command {
	var images []string
	var replicas, port int32
	var command []string
	cmd := t.generate(generator{
		use: "deployment NAME --image=IMAGE [-- COMMAND [ARG...]]", short: "Create a Deployment", namespaced: true,
		example: "  ctl create deployment web --image=nginx --replicas=3 --port=80",
		make: func(ns, name string) (runtime.Object, error) {
			if len(images) == 0 {
				return nil, usagef("give the image with --image=IMAGE")
			}
			labels := map[string]string{"app": name}
			d := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: ns, Labels: labels}}
			d.Spec.Replicas = &replicas
			d.Spec.Selector = &metav1.LabelSelector{MatchLabels: labels}
			d.Spec.Template.Labels = labels
			for _, img := range images {
				c := corev1.Container{Name: containerName(img), Image: img, Command: command}
				if port > 0 {
					c.Ports = []corev1.ContainerPort{{ContainerPort: port}}
				}
				d.Spec.Template.Spec.Containers = append(d.Spec.Template.Spec.Containers, c)
			}
			return d, nil
		},
	})
	cmd.Aliases = []string{"deploy"}
	cmd.Args = func(cmd *cobra.Command, args []string) error {
		n := len(args)
		if dash := cmd.ArgsLenAtDash(); dash >= 0 {
			n, command = dash, args[dash:]
		}
		if n != 1 {
			return usagef("got %d names, expected one name of the new Deployment (a command comes after --)", n)
		}
		return nil
	}
	cmd.Flags().StringSliceVar(&images, "image", nil, "image; several make several containers")
	cmd.Flags().Int32VarP(&replicas, "replicas", "r", 1, "how many pods")
	cmd.Flags().Int32Var(&port, "port", 0, "port that the container listens on")
	return cmd
}

// containerName makes a container's name out of an image's.
func containerName(image string) string {
	name := image[strings.LastIndex(image, "/")+1:]
	name, _, _ = strings.Cut(name, "@")
	name, _, _ = strings.Cut(name, ":")
	name = strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
			return r
		}
		return '-'
	}, strings.ToLower(name))
	return strings.Trim(name, "-")
}

func (t *tool) createService() *cobra.Command {
	cmd := &cobra.Command{Use: "service", Aliases: []string{"svc"}, Short: "Create a Service: clusterip, nodeport, loadbalancer or externalname"}
	for _, kind := range []corev1.ServiceType{corev1.ServiceTypeClusterIP, corev1.ServiceTypeNodePort, corev1.ServiceTypeLoadBalancer} {
		cmd.AddCommand(t.createServiceOf(kind))
	}
	var target string
	external := t.generate(generator{
		use: "externalname NAME --external-name=DOMAIN", short: "Create a Service that is an alias of a DNS name", namespaced: true,
		make: func(ns, name string) (runtime.Object, error) {
			if target == "" {
				return nil, usagef("give the DNS name with --external-name=DOMAIN")
			}
			return &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: ns, Labels: map[string]string{"app": name}},
				Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeExternalName, ExternalName: target}}, nil
		},
	})
	external.Flags().StringVar(&target, "external-name", "", "the name that clients are sent to")
	cmd.AddCommand(external)
	return cmd
}

func (t *tool) createServiceOf(kind corev1.ServiceType) *cobra.Command {
	var tcp []string
	var clusterIP string
	var nodePort int32
	lower := strings.ToLower(string(kind))
	cmd := t.generate(generator{
		use: lower + " NAME --tcp=PORT[:TARGET]", short: "Create a Service of type " + string(kind) + " for the pods with the label app=NAME", namespaced: true,
		make: func(ns, name string) (runtime.Object, error) {
			svc := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: ns, Labels: map[string]string{"app": name}}}
			svc.Spec = corev1.ServiceSpec{Type: kind, ClusterIP: clusterIP, Selector: map[string]string{"app": name}}
			for _, p := range tcp {
				port, err := servicePort(p)
				if err != nil {
					return nil, err
				}
				port.NodePort = nodePort
				svc.Spec.Ports = append(svc.Spec.Ports, port)
			}
			if len(svc.Spec.Ports) == 0 && clusterIP != corev1.ClusterIPNone {
				return nil, usagef("give at least one port with --tcp=PORT[:TARGET]")
			}
			return svc, nil
		},
	})
	cmd.Flags().StringSliceVar(&tcp, "tcp", nil, "port, or port:targetPort")
	switch kind {
	case corev1.ServiceTypeClusterIP:
		cmd.Flags().StringVar(&clusterIP, "clusterip", "", "address of the Service; None for a headless one")
	case corev1.ServiceTypeNodePort:
		cmd.Flags().Int32Var(&nodePort, "node-port", 0, "port on all nodes; 0 lets the server choose")
	}
	return cmd
}

// servicePort reads PORT or PORT:TARGET.
func servicePort(s string) (corev1.ServicePort, error) {
	from, to, two := strings.Cut(s, ":")
	port, err := strconv.ParseUint(from, 10, 16)
	if err != nil || port == 0 {
		return corev1.ServicePort{}, usagef("--tcp=%s: %q is no port between 1 and 65535", s, from)
	}
	target := intstr.FromInt32(int32(port))
	if two {
		target = intstr.Parse(to)
	}
	return corev1.ServicePort{Name: strings.ReplaceAll(s, ":", "-"), Port: int32(port), TargetPort: target, Protocol: corev1.ProtocolTCP}, nil
}

func (t *tool) createToken() *cobra.Command {
	var audiences []string
	var lifetime time.Duration
	var kind, name, uid string
	cmd := &cobra.Command{
		Use:               "token SERVICEACCOUNT",
		Short:             "Request a token of a service account and print it",
		Args:              between(1, 1, "the name of a service account"),
		ValidArgsFunction: t.completeNames("serviceaccounts"),
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		ns, _, err := t.namespace()
		if err != nil {
			return err
		}
		client, err := t.client()
		if err != nil {
			return err
		}
		req := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{Audiences: audiences}}
		if lifetime > 0 {
			seconds := int64(lifetime / time.Second)
			req.Spec.ExpirationSeconds = &seconds
		}
		if kind != "" {
			if kind != "Pod" && kind != "Secret" && kind != "Node" {
				return usagef("--bound-object-kind=%s is not possible: use Pod, Secret or Node", kind)
			}
			req.Spec.BoundObjectRef = &authenticationv1.BoundObjectReference{Kind: kind, APIVersion: "v1", Name: name, UID: types.UID(uid)}
		}
		got, err := client.CoreV1().ServiceAccounts(ns).CreateToken(cmd.Context(), args[0], req, metav1.CreateOptions{})
		if err != nil {
			return err
		}
		if got.Status.Token == "" {
			return fmt.Errorf("the server gave no token for the service account %s", args[0])
		}
		fmt.Fprintln(t.Out, got.Status.Token)
		return nil
	}
	f := cmd.Flags()
	f.StringSliceVar(&audiences, "audience", nil, "who the token is for; the API server when empty")
	f.DurationVar(&lifetime, "duration", 0, "how long it lasts; 0 leaves it to the server")
	f.StringVar(&kind, "bound-object-kind", "", "the token ends with this object: Pod, Secret or Node")
	f.StringVar(&name, "bound-object-name", "", "name of that object")
	f.StringVar(&uid, "bound-object-uid", "", "UID of that object")
	return cmd
}
