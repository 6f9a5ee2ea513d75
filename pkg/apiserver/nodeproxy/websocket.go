//lint:file-ignore SA1019 client-go's executor still takes the connections of apimachinery's spdy package.

package nodeproxy

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"

	gwebsocket "github.com/gorilla/websocket"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/httpstream/spdy"
	portforwardconsts "k8s.io/apimachinery/pkg/util/portforward"
	remotecommandconsts "k8s.io/apimachinery/pkg/util/remotecommand"
	"k8s.io/client-go/tools/portforward"
	"k8s.io/client-go/tools/remotecommand"
	utilexec "k8s.io/client-go/util/exec"
	"k8s.io/streaming/pkg/httpstream/wsstream"

	"coracle/pkg/apiserver"
)

// translate speaks WebSocket v5 with the client and SPDY with the agent, since
// runtimes know v4 at most and v4 cannot close one direction (KEP-4006).
func (p *Proxy) translate(w http.ResponseWriter, r *http.Request, target *url.URL, s streams) {
	conn := wsstream.NewConn(map[string]wsstream.ChannelProtocolConfig{
		remotecommandconsts.StreamProtocolV5Name: {Binary: true, Channels: channels(s)},
	})
	conn.SetIdleTimeout(idleTimeout)
	_, chans, err := conn.Open(w, r)
	if err != nil {
		p.cfg.Log.Debug("a WebSocket could not be opened", "error", err)
		return
	}
	defer closeBody(conn)
	err = p.run(r.Context(), target, s, chans)
	status, encodeErr := json.Marshal(commandStatus(err))
	if encodeErr != nil {
		return
	}
	if _, err := chans[remotecommandconsts.StreamErr].Write(status); err != nil {
		p.cfg.Log.Debug("the outcome of a command could not be sent", "error", err)
	}
}

// channels are the five numbered channels of a remote command.
func channels(s streams) []wsstream.ChannelType {
	pick := func(on bool, t wsstream.ChannelType) wsstream.ChannelType {
		if on {
			return t
		}
		return wsstream.IgnoreChannel
	}
	return []wsstream.ChannelType{
		pick(s.stdin, wsstream.ReadChannel),
		pick(s.stdout, wsstream.WriteChannel),
		pick(s.stderr, wsstream.WriteChannel),
		wsstream.WriteChannel,
		pick(s.tty, wsstream.ReadChannel),
	}
}

// run executes the command at the agent over SPDY.
func (p *Proxy) run(ctx context.Context, target *url.URL, s streams, chans []io.ReadWriteCloser) error {
	tripper, err := spdy.NewRoundTripperWithConfig(spdy.RoundTripperConfig{
		TLS: p.tls(), PingPeriod: 5 * time.Second,
	})
	if err != nil {
		return err
	}
	executor, err := remotecommand.NewSPDYExecutorRejectRedirects(tripper, tripper, http.MethodPost, target)
	if err != nil {
		return err
	}
	opts := remotecommand.StreamOptions{Tty: s.tty}
	if s.stdin {
		opts.Stdin = chans[remotecommandconsts.StreamStdIn]
	}
	if s.stdout {
		opts.Stdout = chans[remotecommandconsts.StreamStdOut]
	}
	if s.stderr {
		opts.Stderr = chans[remotecommandconsts.StreamStdErr]
	}
	if s.tty {
		opts.TerminalSizeQueue = &sizes{json.NewDecoder(chans[remotecommandconsts.StreamResize])}
	}
	return executor.StreamWithContext(ctx, opts)
}

// sizes reads the client's terminal sizes.
type sizes struct{ decoder *json.Decoder }

// Next implements remotecommand.TerminalSizeQueue: nil ends it.
func (q *sizes) Next() *remotecommand.TerminalSize {
	var size remotecommand.TerminalSize
	if err := q.decoder.Decode(&size); err != nil {
		return nil
	}
	return &size
}

// commandStatus is how a command's end is told on the error channel.
func commandStatus(err error) *metav1.Status {
	var exit utilexec.ExitError
	switch {
	case err == nil:
		return &metav1.Status{Status: metav1.StatusSuccess}
	case errors.As(err, &exit) && exit.Exited():
		return &metav1.Status{
			Status: metav1.StatusFailure, Reason: remotecommandconsts.NonZeroExitCodeReason,
			Message: fmt.Sprintf("command terminated with non-zero exit code: %v", err),
			Details: &metav1.StatusDetails{Causes: []metav1.StatusCause{{
				Type: remotecommandconsts.ExitCodeCauseType, Message: fmt.Sprint(exit.ExitStatus())}}},
		}
	}
	s := apiserver.StatusOf(err)
	return &s
}

// tunnelProtocol is the subprotocol of a port-forward whose SPDY frames travel
// in WebSocket messages (KEP-4006).
const tunnelProtocol = portforwardconsts.WebsocketsSPDYTunnelingPortForwardV1

// tunnel unpacks a client's SPDY from WebSocket messages.
func (p *Proxy) tunnel(w http.ResponseWriter, r *http.Request, target *url.URL) {
	ask := &http.Request{Method: http.MethodPost, URL: target, Host: target.Host, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: http.Header{"Connection": {"Upgrade"}, "Upgrade": {"SPDY/3.1"}, "X-Stream-Protocol-Version": {"portforward.k8s.io"}}}
	agent, refused, err := p.upgrade(r.Context(), ask, target)
	if err != nil {
		refused = unreachable(target, err)
	}
	if refused != nil {
		apiserver.WriteError(w, refused)
		return
	}
	defer closeBody(agent)
	upgrader := gwebsocket.Upgrader{
		HandshakeTimeout: answerTimeout, Subprotocols: []string{tunnelProtocol},
		// Requests are authenticated by certificate or token, never by a
		// cookie, so that another page's script has nothing to ride on.
		CheckOrigin: func(*http.Request) bool { return true },
	}
	ws, err := upgrader.Upgrade(w, r, nil)
	if err != nil {
		p.cfg.Log.Debug("a WebSocket could not be opened", "error", err)
		return
	}
	join(portforward.NewTunnelingConnection("server", ws), agent)
}
