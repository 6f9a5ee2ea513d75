package ctl

import (
	"fmt"

	"github.com/spf13/cobra"
)

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
