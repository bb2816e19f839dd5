package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nats.go/micro"
	"go.uber.org/zap"

	"nimble-bridge/nimble"
	"nimble-bridge/nimble/nimbletest"
	"nimble-bridge/poller"
	"nimble-bridge/publisher"
)

// The tests of this file run what the permissions in deploy/nats/permissions.conf are for, each under exactly these, against a server that has read that file.

// deployedUsers reads the users from the deployed file.
func deployedUsers(t *testing.T) *server.Options {
	t.Helper()
	file, err := os.ReadFile("../../deploy/nats/permissions.conf")
	if err != nil {
		t.Fatal(err)
	}
	// The environment has the passwords in production; here the file begins with them, so that tests can run side by side.
	var passwords strings.Builder
	for _, user := range []string{"BRIDGE", "CONSUMER", "OPERATOR"} {
		fmt.Fprintf(&passwords, "NATS_%s_PASSWORD: %q\n", user, passwordOf(strings.ToLower(user)))
	}
	opts := new(server.Options)
	if err := opts.ProcessConfigString(passwords.String() + string(file)); err != nil {
		t.Fatal(err)
	}
	return opts
}

func passwordOf(user string) string { return "password-of-" + user }

// guardedServer starts a server with users; change, if not nil, changes the permissions of one.
func guardedServer(t *testing.T, opts *server.Options, name string, change func(*server.Permissions)) *server.Server {
	t.Helper()
	opts = opts.Clone()
	opts.Host, opts.Port, opts.NoSigs, opts.NoLog = "127.0.0.1", server.RANDOM_PORT, true, true
	opts.JetStream, opts.StoreDir = true, t.TempDir()
	for _, u := range opts.Users {
		if u.Username == name && change != nil {
			change(u.Permissions)
		}
	}
	srv, err := server.NewServer(opts)
	if err != nil {
		t.Fatal(err)
	}
	srv.Start()
	t.Cleanup(func() {
		srv.Shutdown()
		srv.WaitForShutdown()
	})
	if !srv.ReadyForConnections(patience) {
		t.Fatal("the server does not get ready")
	}
	return srv
}

// connectAs connects as one of the users, as any client would; violations collects what the server denies it.
func connectAs(t *testing.T, srv *server.Server, user string) (conn *nats.Conn, violations func() []string) {
	t.Helper()
	var mu sync.Mutex
	var denied []string
	conn, err := nats.Connect(srv.ClientURL(), nats.UserInfo(user, passwordOf(user)), nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
		mu.Lock()
		defer mu.Unlock()
		denied = append(denied, err.Error())
	}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	return conn, func() []string {
		mu.Lock()
		defer mu.Unlock()
		return slices.Clone(denied)
	}
}

func TestTheBridgeRunsUnderTheDeployedPermissions(t *testing.T) {
	opts := deployedUsers(t)
	for _, manage := range []string{"true", "false"} {
		t.Run("NATS_MANAGE="+manage, func(t *testing.T) {
			srv := guardedServer(t, opts, "bridge", func(p *server.Permissions) {
				if manage == "false" {
					p.Publish.Allow = slices.DeleteFunc(p.Publish.Allow, func(subject string) bool {
						return strings.HasPrefix(subject, "$JS.API.STREAM.CREATE.") || strings.HasPrefix(subject, "$JS.API.STREAM.UPDATE.")
					})
				}
			})
			if manage == "false" {
				unlimited := guardedServer(t, opts, "bridge", nil)
				copyStreams(t, unlimited, srv)
			}
			nimble := startNimble(t, nimbletest.WithContacts(150))
			environment(t, nimble, "NATS_URL", srv.ClientURL(), "NATS_USER", "bridge", "NATS_PASSWORD", passwordOf("bridge"), "NATS_MANAGE", manage)
			leader := start(t)
			leader.stderr.await(t, `"msg":"snapshot finished"`)
			standby := start(t)
			standby.stderr.await(t, `"msg":"another bridge polls this account; standing by"`)
			nimble.Edit(nimble.IDs()[0], nimbletest.Tags("seen under permissions"))
			nimble.Create(nimbletest.Tags("supplier"))

			t.Run("check finds nothing amiss", func(t *testing.T) {
				if code, stdout, stderr := runProgram(t.Context(), "check"); code != 0 {
					t.Errorf("exit code %d:\n%s%s", code, stdout, stderr)
				}
			})
			t.Run("a consumer reads", func(t *testing.T) { consumeAll(t, srv, 152) })
			t.Run("an operator looks after the streams", func(t *testing.T) { operate(t, srv) })
			t.Run("the commands work for who may use them", func(t *testing.T) { commandBeside(t, srv, nimble) })

			leader.finish(t)
			soon(t, "the standby leads", func() bool { return strings.Contains(standby.stderr.String(), `"msg":"leader lease taken"`) })
			nimble.Edit(nimble.IDs()[1], nimbletest.Tags("seen under permissions"))
			consumeAll(t, srv, 153)
			standby.finish(t)
			for _, r := range []*running{leader, standby} {
				if log := r.stderr.String(); strings.Contains(log, "ermissions violation") {
					t.Errorf("the bridge lacks a permission:\n%s", log)
				}
			}
		})
	}
}

// commandBeside runs the commands beside the bridge, each as the user that it is for.
func commandBeside(t *testing.T, srv *server.Server, nimble *nimbletest.Server) {
	t.Helper()
	ids := nimble.IDs()
	for _, c := range []struct{ user, command string }{
		{"operator", "status --json"},
		{"operator", "pause"},
		{"operator", "resume"},
		{"operator", "poll-now"},
		{"operator", "explain " + ids[0]},
		{"operator", "resync --contact " + ids[2]},
		{"operator", "confirm-deletions"},
		{"operator", "erase --even-if-present --contact " + ids[3]},
		{"operator", "tail --all --events 1"},
		{"consumer", "tail --all --events 1"},
	} {
		t.Run(c.command+" as "+c.user, func(t *testing.T) {
			setenv(t, map[string]string{"NIMBLE_API_KEY": "test-key", "NIMBLE_BASE_URL": nimble.URL, "NIMBLE_ACCOUNT": "acme", "NATS_URL": srv.ClientURL(), "NATS_USER": c.user, "NATS_PASSWORD": passwordOf(c.user)})
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			if code, stdout, stderr := runProgram(ctx, strings.Fields(c.command)...); code != 0 || ctx.Err() != nil {
				t.Errorf("exit code %d, %v:\n%s%s", code, ctx.Err(), stdout, stderr)
			}
		})
	}
}

// copyStreams sets up on one server the streams that the bridge has set up on another.
func copyStreams(t *testing.T, from, to *server.Server) {
	t.Helper()
	if err := bridgeCycle(t.Context(), from); err != nil {
		t.Fatal(err)
	}
	source, _ := connectAs(t, from, "operator")
	target, _ := connectAs(t, to, "operator")
	for _, name := range []string{"NIMBLE", "KV_nimble-contacts", "KV_nimble-bridge"} {
		stream, err := newJetStream(t, source).Stream(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := newJetStream(t, target).CreateStream(t.Context(), stream.CachedInfo().Config); err != nil {
			t.Fatal(err)
		}
	}
}

func newJetStream(t *testing.T, conn *nats.Conn) jetstream.JetStream {
	t.Helper()
	js, err := jetstream.New(conn)
	if err != nil {
		t.Fatal(err)
	}
	return js
}

// consumeAll reads as a consumer may, in each way there is, until it has seen the given number of events.
func consumeAll(t *testing.T, srv *server.Server, want int) {
	t.Helper()
	conn, violations := connectAs(t, srv, "consumer")
	js := newJetStream(t, conn)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if _, err := conn.SubscribeSync("nimble.>"); err != nil {
		t.Fatal(err)
	}

	durable, err := js.CreateOrUpdateConsumer(ctx, "NIMBLE", jetstream.ConsumerConfig{Durable: "reader", AckPolicy: jetstream.AckExplicitPolicy, FilterSubject: "nimble.*.contact.>"})
	if err != nil {
		t.Fatal(err)
	}
	messages, err := durable.Messages()
	if err != nil {
		t.Fatal(err)
	}
	for i := range want {
		msg, err := messages.Next(jetstream.NextContext(ctx))
		if err != nil {
			t.Fatalf("after %d of %d events: %v; denied: %v", i, want, err, violations())
		}
		if err := msg.DoubleAck(ctx); err != nil {
			t.Fatal(err)
		}
	}
	messages.Stop()
	if _, err := durable.Info(ctx); err != nil {
		t.Error(err)
	}
	if err := js.DeleteConsumer(ctx, "NIMBLE", "reader"); err != nil {
		t.Error(err)
	}

	kv, err := js.KeyValue(ctx, "nimble-contacts")
	if err != nil {
		t.Fatal(err)
	}
	var keys []string
	soon(t, "the bucket has the contacts", func() bool { // NATS fills it, in its own time.
		keys, err = kv.Keys(ctx)
		return err == nil && len(keys) >= 150
	})
	if _, err := kv.Get(ctx, keys[0]); err != nil {
		t.Error(err)
	}

	// What it may not do leaves a violation behind, so this comes last.
	if denied := violations(); len(denied) > 0 {
		t.Errorf("a consumer is denied what it needs: %v", denied)
	}
	for _, subject := range []string{"nimble.acme.contact.created.x", "$KV.nimble-contacts.acme.x", "$JS.API.STREAM.PURGE.NIMBLE", "nimble-bridge.acme.pause"} {
		before := len(violations())
		if err := conn.Publish(subject, []byte("{}")); err != nil {
			t.Fatal(err)
		}
		soon(t, "a consumer is denied "+subject, func() bool { return len(violations()) > before })
	}
}

// operate does what an operator does with the nats command.
func operate(t *testing.T, srv *server.Server) {
	t.Helper()
	conn, violations := connectAs(t, srv, "operator")
	js := newJetStream(t, conn)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var names []string
	list := js.ListStreams(ctx)
	for info := range list.Info() {
		names = append(names, info.Config.Name)
	}
	if slices.Sort(names); !slices.Equal(names, []string{"KV_nimble-bridge", "KV_nimble-contacts", "NIMBLE"}) || list.Err() != nil {
		t.Errorf("streams %v, %v; want all three", names, list.Err())
	}
	stream, err := js.Stream(ctx, "NIMBLE")
	if err != nil {
		t.Fatal(err)
	}
	last, err := stream.GetLastMsgForSubject(ctx, "nimble.*.contact.>")
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.DeleteMsg(ctx, last.Sequence+1_000_000); errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("deleting a message that is none: %v", err)
	}
	if err := stream.Purge(ctx, jetstream.WithPurgeSubject("nimble.nobody.contact.>")); err != nil {
		t.Error(err)
	}
	if _, err := stream.OrderedConsumer(ctx, jetstream.OrderedConsumerConfig{}); err != nil {
		t.Error(err)
	}
	for range stream.ListConsumers(ctx).Info() {
		continue
	}
	kv, err := js.KeyValue(ctx, "nimble-bridge")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := kv.Get(ctx, "acme.leader"); err != nil {
		t.Error(err)
	}
	if denied := violations(); len(denied) > 0 {
		t.Errorf("an operator is denied what it needs: %v", denied)
	}
}

// Taking any one of the bridge's permissions away breaks something, so there is none that it does not need.
func TestEachDeployedPermissionOfTheBridgeIsNeeded(t *testing.T) {
	opts := deployedUsers(t)
	if err := bridgeCycle(t.Context(), guardedServer(t, opts, "bridge", nil)); err != nil {
		t.Fatalf("with every permission: %v", err)
	}
	without := func(list *[]string, subject string) {
		*list = slices.DeleteFunc(*list, func(s string) bool { return s == subject })
	}
	removals := map[string]func(*server.Permissions){
		"answering": func(p *server.Permissions) { p.Response = nil },
	}
	for _, u := range opts.Users {
		if u.Username != "bridge" {
			continue
		}
		for _, subject := range u.Permissions.Publish.Allow {
			removals["publishing to "+subject] = func(p *server.Permissions) { without(&p.Publish.Allow, subject) }
		}
		for _, subject := range u.Permissions.Subscribe.Allow {
			removals["subscribing to "+subject] = func(p *server.Permissions) { without(&p.Subscribe.Allow, subject) }
		}
	}
	if len(removals) < 20 {
		t.Fatalf("only %d permissions in the file", len(removals))
	}
	// They mostly wait for answers that do not come, so all of them do at once; some would wait for ever.
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	var wg sync.WaitGroup
	for name, remove := range removals {
		srv := guardedServer(t, opts, "bridge", remove)
		wg.Go(func() {
			if err := bridgeCycle(ctx, srv); err == nil {
				t.Errorf("without %s nothing is amiss", name)
			}
		})
	}
	wg.Wait()
}

// bridgeCycle does once all that the bridge does with NATS, as the user bridge, and returns what went wrong, or what the server has denied.
func bridgeCycle(ctx context.Context, srv *server.Server) error {
	conn, err := publisher.Connect(ctx, publisher.ConnectConfig{URLs: []string{srv.ClientURL()}, User: "bridge", Password: passwordOf("bridge")}, zap.NewNop())
	if err != nil {
		return err
	}
	defer conn.Close()
	err = errors.Join(cycle(ctx, conn), answerCommand(ctx, srv, conn))
	if flushed := conn.NATS().FlushTimeout(patience); flushed != nil {
		return errors.Join(err, flushed)
	}
	// Some of what is denied is of the kind that nobody waits for.
	if denied := conn.NATS().LastError(); errors.Is(denied, nats.ErrPermissionViolation) {
		err = errors.Join(err, denied)
	}
	return err
}

func cycle(ctx context.Context, conn *publisher.Connection) error {
	// Much for a server in the same process, also for one that shares it with thirty others.
	const answer = 2 * time.Second
	p, err := publisher.Open(ctx, conn, publisher.Config{
		Account: "acme", Stream: "NIMBLE", Prefix: "nimble", Bucket: "nimble-contacts", Manage: true, AckTimeout: answer, Patience: answer,
	}, zap.NewNop())
	if err != nil {
		return err
	}
	leader, err := p.Lease(ctx, "leader", time.Second)
	if err != nil {
		return err
	}
	standby, err := p.Lease(ctx, "standby", time.Second)
	if err != nil {
		return err
	}
	standing, followed := make(chan struct{}, 100), make(chan error, 1)
	err = leader.Run(ctx, func(leading context.Context) error {
		if err := publish(ctx, p); err != nil {
			return err
		}
		go func() {
			followed <- standby.Run(ctx, func(context.Context) error { return errDone }, func(string) { standing <- struct{}{} })
		}()
		select {
		case <-standing:
		case <-leading.Done():
			return leading.Err()
		}
		return errDone
	}, nil)
	if !errors.Is(err, errDone) {
		return fmt.Errorf("the leader ends with %w", err)
	}
	// The one that stands by watches the lease, and takes it when it is given back.
	if err := <-followed; !errors.Is(err, errDone) {
		return fmt.Errorf("the standby ends with %w", err)
	}
	return nil
}

// errDone ends a lease.
var errDone = errors.New("done")

// publish reads what is known, and publishes one page and one change.
func publish(ctx context.Context, p *publisher.Publisher) error {
	now := time.Now().UTC()
	load := func() error { return p.Load(ctx, func(poller.Known) {}) }
	if err := load(); err != nil {
		return err
	}
	if err := p.SaveProgress(ctx, poller.Progress{FirstMet: now}); err != nil {
		return err
	}
	if _, err := p.Progress(ctx); err != nil {
		return err
	}
	var changes []poller.Change
	for _, id := range []string{"a1", "a2", "a3"} {
		contact := nimble.Contact{ID: id, RecordType: "person", Created: now, Updated: now, Raw: jsontext.Value(`{"id":"` + id + `","record_type":"person"}`)}
		fingerprint, err := poller.FingerprintOf(contact.Raw)
		if err != nil {
			return err
		}
		changes = append(changes, poller.Change{Kind: poller.Created, Contact: contact, Fingerprint: fingerprint, Revision: 1, Observed: now, FoundBy: poller.FoundByPoll})
	}
	if _, err := p.Append(ctx, changes[:2]); err != nil {
		return err
	}
	if _, err := p.Append(ctx, changes[2:]); err != nil {
		return err
	}
	if err := p.Reject(ctx, []poller.Rejection{{Reason: "no id", Record: jsontext.Value(`{}`), Observed: now}}); err != nil {
		return err
	}
	if err := p.Receipt(ctx, poller.Receipt{At: now, Contacts: 3}); err != nil {
		return err
	}
	for behind := uint64(1); behind > 0; {
		var err error
		if behind, err = p.BucketBehind(ctx); err != nil {
			return err
		}
	}
	return load() // Now there is something to read in both.
}

// answerCommand answers a command as the bridge, and sends it as an operator.
func answerCommand(ctx context.Context, srv *server.Server, conn *publisher.Connection) error {
	service, err := micro.AddService(conn.NATS(), micro.Config{Name: "nimble-bridge", Version: "0.0.0"})
	if err != nil {
		return err
	}
	defer func() { _ = service.Stop() }()
	err = service.AddEndpoint("status", micro.HandlerFunc(func(r micro.Request) { _ = r.Respond([]byte("{}")) }), micro.WithEndpointSubject("nimble-bridge.acme.status"))
	if err != nil {
		return err
	}
	if err := conn.NATS().FlushTimeout(patience); err != nil {
		return err
	}
	operator, err := nats.Connect(srv.ClientURL(), nats.UserInfo("operator", passwordOf("operator")))
	if err != nil {
		return err
	}
	defer operator.Close()
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	for _, subject := range []string{"nimble-bridge.acme.status", "$SRV.PING.nimble-bridge"} {
		if _, err := operator.RequestWithContext(ctx, subject, nil); err != nil {
			return fmt.Errorf("%s: %w", subject, err)
		}
	}
	return nil
}
