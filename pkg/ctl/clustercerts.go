package ctl

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"
)

func (t *tool) clusterRotateCA() *cobra.Command {
	var finish, force bool
	cmd := &cobra.Command{
		Use:   "rotate-ca [NAME]",
		Short: "Replace the authority of a cluster's certificates while it runs",
		Long: "Make a new authority, have everybody trust it beside the old one, and have everything issued by it. Nothing is\n" +
			"restarted, and clients that know the old authority alone go on. A second call with --finish gives the old one\n" +
			"up: certificates of it count no more, and connections under them are closed. Whatever is interrupted is\n" +
			"gone on with by the same call. \"ctl cluster certs\" shows how far a replacement is.",
		Example:           "  ctl cluster rotate-ca coracle\n  ctl cluster rotate-ca coracle --finish",
		Args:              between(0, 1, "one name of a cluster, or none for "+defaultCluster),
		ValidArgsFunction: t.completeClusters,
		RunE: func(cmd *cobra.Command, args []string) error {
			if force && !finish {
				return usagef("--force is for --finish")
			}
			return t.machine(nil).RotateCA(cmd.Context(), nameOf(args), finish, force)
		},
	}
	cmd.Flags().BoolVar(&finish, "finish", false, "give the old authority up")
	cmd.Flags().BoolVar(&force, "force", false, "with --finish, give up nodes that have no certificate of the new authority")
	return cmd
}

func (t *tool) clusterCerts() *cobra.Command {
	return &cobra.Command{
		Use:               "certs [NAME]",
		Short:             "List a cluster's certificates, and when they end",
		Args:              between(0, 1, "one name of a cluster, or none for "+defaultCluster),
		ValidArgsFunction: t.completeClusters,
		RunE: func(_ *cobra.Command, args []string) error {
			now := time.Now()
			all, err := t.machine(nil).Certificates(nameOf(args), now)
			if err != nil {
				return err
			}
			w := t.table()
			fmt.Fprintln(w, "CERTIFICATE\tOF\tAUTHORITY\tENDS\tNOTE")
			for _, c := range all {
				fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", c.File, c.Subject, c.Issuer, c.Ends.UTC().Format(time.RFC3339), c.Note)
			}
			return w.Flush()
		},
	}
}

func (t *tool) clusterRevoke() *cobra.Command {
	var undo bool
	cmd := &cobra.Command{
		Use:   "revoke NAME [CERTIFICATE...]",
		Short: "Refuse client certificates, or list those that are refused",
		Long: "Put certificates on the list of those that the cluster's API server refuses, although they have not expired.\n" +
			"Within seconds requests under them fail, and what is under way, such as watches, ends. A certificate is a file\n" +
			"that holds it, X509SHA256=FINGERPRINT as the audit log has it, or serial=HEXADECIMAL. Without one, print the list.",
		Example:           "  ctl cluster revoke coracle ann.crt\n  ctl cluster revoke coracle serial=5c1e09 --undo",
		Args:              between(1, 1000, "the name of a cluster, and certificates"),
		ValidArgsFunction: t.completeClusters,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 1 {
				return t.machine(nil).Revoke(cmd.Context(), args[0], args[1:], undo)
			}
			if undo {
				return usagef("--undo needs the certificates that are to be accepted again")
			}
			lines, err := t.machine(nil).Revoked(args[0])
			for _, line := range lines {
				fmt.Fprintln(t.Out, line)
			}
			return err
		},
	}
	cmd.Flags().BoolVar(&undo, "undo", false, "accept the certificates again")
	return cmd
}
