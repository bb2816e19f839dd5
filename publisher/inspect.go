package publisher

import (
	"context"
	"errors"
	"fmt"
	"math"
	"reflect"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nuid"
	"go.uber.org/zap"

	"nimble-bridge/publisher/event"
)

// Inspector looks at NATS as [Open] would find it, and changes nothing: what it sends to try a permission is made such that the server has to
// refuse it.
type Inspector struct {
	p *Publisher
}

// Inspect returns an inspector for what [Open] would open. It fails where Open would for its configuration, or for want of a connection.
func Inspect(ctx context.Context, conn *Connection, cfg Config) (*Inspector, error) {
	// One answer is enough: nothing is lost by asking again later.
	cfg.Patience = time.Nanosecond
	p, err := prepare(ctx, conn, cfg, zap.NewNop())
	if err != nil {
		return nil, err
	}
	return &Inspector{p}, nil
}

// Server is what an [Inspector] finds of the server and of what the account may store there.
type Server struct {
	// Name, Version and URL are those of the server at the other end, Cluster is the name of its cluster, if it is in one.
	Name, Version, URL, Cluster string
	// Stored is how many bytes the account's streams take up, Limit how many they may; negative for no limit of the account.
	Stored uint64
	Limit  int64
	// Streams is the number of the account's streams, MaxStreams how many there may be; negative for no limit of the account.
	Streams, MaxStreams int
}

// Server asks for the server's version and for JetStream. The error is a [*ServerTooOldError] or a [*NoJetStreamError] where that is the reason; what is known
// without JetStream is returned all the same.
func (i *Inspector) Server(ctx context.Context) (Server, error) {
	nc := i.p.nc
	s := Server{
		Name: nc.ConnectedServerName(), Version: nc.ConnectedServerVersion(), URL: nc.ConnectedUrlRedacted(), Cluster: nc.ConnectedClusterName(),
		Limit: none, MaxStreams: none,
	}
	if err := i.p.checkServer(ctx); err != nil {
		return s, err
	}
	limited, cancel := context.WithTimeout(ctx, i.p.cfg.AckTimeout)
	defer cancel()
	account, err := i.p.js.AccountInfo(limited)
	if err != nil {
		return s, fmt.Errorf("JetStream: %w", err)
	}
	tier := account.Tier
	if of, ok := account.Tiers[fmt.Sprintf("R%d", max(i.p.cfg.Replicas, 1))]; ok {
		tier = of
	}
	s.Stored, s.Limit, s.Streams, s.MaxStreams = tier.Store, orNone(tier.Limits.MaxStore), tier.Streams, int(orNone(int64(tier.Limits.MaxStreams)))
	return s, nil
}

// Permission is something that the NATS user has to be allowed.
type Permission struct {
	// Subscribe tells a permission to subscribe from one to publish.
	Subscribe bool
	Subject   string
	// Purpose says what for.
	Purpose string
	// Denied says that the server does not allow it.
	Denied bool

	// tries are subjects of which one has to be allowed, as proof of the whole.
	tries []string
}

// String returns the permission for people: "publish to nimble.acme.contact.*.*".
func (p Permission) String() string {
	if p.Subscribe {
		return "subscribe to " + p.Subject
	}
	return "publish to " + p.Subject
}

// Permissions tries each permission that the bridge needs for this account. Nothing is stored: events and state are sent with the expectation of a stream of
// another name, and requests that would change something name another stream than their subject does.
func (i *Inspector) Permissions(ctx context.Context) ([]Permission, error) {
	return i.Try(ctx, i.p.permissions()...)
}

// Try finds out which of the permissions are denied. To try one to publish, a message is sent that no stream stores; subscribers get it.
func (i *Inspector) Try(ctx context.Context, permissions ...Permission) ([]Permission, error) {
	for at := range permissions {
		p := &permissions[at]
		p.Denied = true
		tries := p.tries
		if tries == nil {
			tries = []string{strings.NewReplacer("*", probe, ">", probe).Replace(p.Subject)}
		}
		for _, subject := range tries {
			denied, err := i.denied(ctx, p.Subscribe, subject)
			if err != nil {
				return nil, err
			}
			if !denied {
				p.Denied = false
				break
			}
		}
	}
	return permissions, nil
}

// probe takes the place of names where something is only tried.
const probe = "check"

// permissions lists what the bridge needs.
func (p *Publisher) permissions() []Permission {
	var list []Permission
	need := func(purpose, subject string) {
		list = append(list, Permission{Subject: subject, Purpose: purpose})
	}
	list = append(list, Permission{Subscribe: true, Subject: InboxPrefix + ".>", Purpose: "receiving answers", tries: []string{InboxPrefix + "." + probe + ".>"}})

	events := p.cfg.Prefix + "." + p.cfg.Account
	for _, verb := range []event.Verb{event.Snapshot, event.Created, event.Updated, event.Deleted} {
		subject := events + ".contact." + string(verb) + ".*"
		list = append(list, Permission{Subject: subject, Purpose: "publishing events", tries: []string{
			// Plain subscribers see what no stream stores, so the verb that nobody waits for comes first. Only a user who may publish just these verbs needs more.
			events + ".contact." + probe + "." + probe,
			events + ".contact." + string(verb) + "." + probe,
		}})
	}
	need("publishing notices and receipts", events+".bridge.*")
	need("keeping the bridge's state", "$KV."+StateBucket+"."+p.cfg.Account+".*")
	need("asking for the account's limits", apiPrefix+"INFO")
	streams := []string{p.cfg.Stream, p.bucketStream, stateObject.name}
	for _, stream := range streams {
		need("looking at streams", apiPrefix+"STREAM.INFO."+stream)
		if p.cfg.Manage {
			need("creating streams", apiPrefix+"STREAM.CREATE."+stream)
			need("updating streams", apiPrefix+"STREAM.UPDATE."+stream)
		}
		need("reading messages", apiPrefix+"STREAM.MSG.GET."+stream)
	}
	consume := func(stream, filter string) {
		// The filter is part of the subject; its wildcards stay.
		need("reading streams", apiPrefix+"CONSUMER.CREATE."+stream+".*."+filter)
		list[len(list)-1].tries = []string{apiPrefix + "CONSUMER.CREATE." + stream + "." + probe + "." + filter}
	}
	consume(p.cfg.Stream, p.events())
	consume(p.cfg.Stream, events+".bridge.*")
	consume(p.bucketStream, p.keys())
	consume(stateObject.name, "$KV."+StateBucket+"."+p.cfg.Account+".*")
	for _, stream := range streams {
		need("reading streams", apiPrefix+"CONSUMER.DELETE."+stream+".*")
	}
	need("reading streams", apiPrefix+"CONSUMER.MSG.NEXT."+p.cfg.Stream+".*")
	need("reading streams", apiPrefix+"CONSUMER.MSG.NEXT."+p.bucketStream+".*")
	return list
}

// denied finds out whether the server forbids a subject: it complains before it answers a later ping.
func (i *Inspector) denied(ctx context.Context, subscribe bool, subject string) (bool, error) {
	nc := i.p.nc
	ctx, cancel := context.WithTimeout(ctx, i.p.cfg.AckTimeout)
	defer cancel()
	began, before := time.Now(), nc.LastError()
	if subscribe {
		sub, err := nc.SubscribeSync(subject)
		if err != nil {
			return false, err
		}
		defer func() { _ = sub.Unsubscribe() }() // Fails only when the connection is gone, and the subscription with it.
	} else if err := nc.PublishMsg(i.p.refusable(subject)); err != nil {
		return false, err
	}
	if err := nc.FlushWithContext(ctx); err != nil {
		return false, i.p.conn.explain(err, began)
	}
	after := nc.LastError()
	return after != before && errors.Is(after, nats.ErrPermissionViolation), nil //nolint:errorlint // The same may be said again; whether it was counts.
}

// refusable is a message that no stream stores, and a request that changes nothing.
func (p *Publisher) refusable(subject string) *nats.Msg {
	msg := &nats.Msg{Subject: subject, Reply: InboxPrefix + "." + probe}
	if strings.HasPrefix(subject, apiPrefix) {
		msg.Data = []byte(`{"name":"` + probe + `","stream_name":"` + probe + `"}`)
		return msg
	}
	// Whoever subscribes to it without a stream sees that it is none of the events.
	msg.Data = []byte(`{"specversion":"1.0","id":"` + nuid.Next() + `","source":"` + event.Source(p.cfg.Account) + `","type":"com.nimble.bridge.check"}`)
	msg.Header = nats.Header{
		jetstream.ExpectedStreamHeader: {probe},
		headerExpected:                 {strconv.FormatUint(math.MaxInt64, 10)},
		event.HeaderContentType:        {event.ContentType},
	}
	return msg
}

// Plan is what [Open] would do about one stream.
type Plan struct {
	// Object is the stream as people know it, for instance "stream NIMBLE".
	Object string
	// Missing says that it would have to be created.
	Missing bool
	// Changes are the properties that would be changed.
	Changes []Misfit
	// Refusal is why Open would fail, as far as can be foreseen: a [*MissingError], [*UnfitError] or [*SetupError].
	Refusal error
	// Messages and Bytes are what is stored, MaxBytes the limit for it; 0 for none.
	Messages, Bytes, MaxBytes uint64
}

// Streams says what [Open] would do about the event stream, the bucket and the state bucket, in this order. The error is about the asking.
func (i *Inspector) Streams(ctx context.Context) ([]Plan, error) {
	p := i.p
	var plans []Plan
	for _, s := range []struct {
		object
		shape func(*jetstream.StreamConfig)
		unfit func(jetstream.StreamConfig) []Misfit
	}{
		{p.eventObject(), p.shapeEvents, p.unfitEvents},
		{p.bucketObject(), p.shapeBucket, p.unfitBucket},
		{stateObject, p.shapeState, p.unfitState},
	} {
		plan, err := i.plan(ctx, s.object, s.shape, s.unfit)
		if err != nil {
			return plans, err
		}
		plans = append(plans, plan)
	}
	return plans, nil
}

// plan foresees what [Publisher.ensure] would do.
func (i *Inspector) plan(ctx context.Context, o object, shape func(*jetstream.StreamConfig), unfit func(jetstream.StreamConfig) []Misfit) (Plan, error) {
	p, plan := i.p, Plan{Object: o.title}
	info, err := p.infoOf(ctx, o)
	if missing, ok := errors.AsType[*MissingError](err); ok {
		plan.Missing = true
		if !p.cfg.Manage {
			plan.Refusal = missing
			return plan, nil
		}
		needed := jetstream.StreamConfig{Name: o.name}
		shape(&needed)
		plan.Refusal = i.obstacle(ctx, o, jetstream.StreamConfig{}, needed)
		return plan, nil
	}
	if err != nil {
		return plan, err
	}
	is := info.Config
	plan.Messages, plan.Bytes, plan.MaxBytes = info.State.Msgs, info.State.Bytes, uint64(max(is.MaxBytes, 0))
	result, fix := is, "change it with `nats stream edit "+o.name+"`, or set NATS_MANAGE=true"
	if p.cfg.Manage {
		shape(&result)
		plan.Changes = differences(is, result)
		fix = "NATS cannot change that in place: move it away, and it is created anew"
		if fixed := unchangeable(is, result); len(fixed) > 0 {
			plan.Refusal = &UnfitError{Object: o.title, Misfits: fixed, Fix: fix}
			return plan, nil
		}
		if plan.Refusal = i.obstacle(ctx, o, is, result); plan.Refusal != nil {
			return plan, nil
		}
	}
	if misfits := unfit(result); len(misfits) > 0 {
		plan.Refusal = &UnfitError{Object: o.title, Misfits: misfits, Fix: fix}
	}
	return plan, nil
}

// unchangeable lists the differences that the server refuses in an update.
func unchangeable(is, needed jetstream.StreamConfig) []Misfit {
	var m misfits
	m.unless(is.Storage == needed.Storage, "storage", is.Storage.String(), needed.Storage.String())
	m.unless(is.Retention == needed.Retention || is.Retention != jetstream.WorkQueuePolicy, "retention", is.Retention.String(), needed.Retention.String())
	m.unless(!is.Sealed || needed.Sealed, "sealed", "true", "false")
	m.unless(is.PersistMode != jetstream.AsyncPersistMode || needed.Replicas <= 1, "persist_mode", is.PersistMode.String(), "default, with replicas")
	return m
}

// obstacle foresees the most usual reasons for the server to refuse a stream that is to be created or changed.
func (i *Inspector) obstacle(ctx context.Context, o object, is, needed jetstream.StreamConfig) error {
	if needed.Replicas > 1 && i.p.nc.ConnectedClusterName() == "" {
		return &SetupError{Object: o.title, Err: fmt.Errorf("%d replicas are wanted of a single server", needed.Replicas), Fix: fixReplicas}
	}
	if len(needed.Sources) == 0 {
		for _, subject := range needed.Subjects {
			other, err := i.owner(ctx, subject, o.name)
			if err == nil && other != "" {
				return &SetupError{Object: o.title, Err: fmt.Errorf("stream %s has subjects of %s", other, subject), Fix: fixOverlap}
			}
		}
	}
	if more := max(needed.MaxBytes, 0) - max(is.MaxBytes, 0); more > 0 {
		if s, err := i.Server(ctx); err == nil && s.Limit >= 0 && uint64(more) > uint64(max(s.Limit-int64(s.Stored), 0)) {
			return &SetupError{Object: o.title, Err: fmt.Errorf("the account has %d of %d bytes left", max(s.Limit-int64(s.Stored), 0), s.Limit), Fix: fixRoom}
		}
	}
	return nil
}

// owner returns another stream that has subjects in common with the given one; empty if there is none. It needs a permission of its own, without which nobody
// is the wiser.
func (i *Inspector) owner(ctx context.Context, subject, self string) (string, error) {
	var answer struct {
		Streams []string `json:"streams"`
	}
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	if err := i.p.ask(ctx, apiPrefix+"STREAM.NAMES", []byte(`{"subject":"`+subject+`"}`), &answer); err != nil {
		return "", err
	}
	for _, name := range answer.Streams {
		if name != self {
			return name, nil
		}
	}
	return "", nil
}

// differences lists the properties in which two configurations of a stream differ.
func differences(is, needed jetstream.StreamConfig) []Misfit {
	var list []Misfit
	a, b := reflect.ValueOf(is), reflect.ValueOf(needed)
	for n := range a.NumField() {
		was, will := a.Field(n).Interface(), b.Field(n).Interface()
		if reflect.DeepEqual(was, will) {
			continue
		}
		name, _, _ := strings.Cut(a.Type().Field(n).Tag.Get("json"), ",")
		list = append(list, Misfit{Property: name, Is: describe(was), Needed: describe(will)})
	}
	return list
}

// describe writes a property's value for people.
func describe(v any) string {
	switch v := v.(type) {
	case []string:
		return strings.Join(v, ", ")
	case []*jetstream.StreamSource:
		return describeSources(v)
	case int64:
		if v == none {
			return "none"
		}
	case string:
		return fmt.Sprintf("%q", v)
	}
	return fmt.Sprint(v)
}

// BucketBehind is [Publisher.BucketBehind].
func (i *Inspector) BucketBehind(ctx context.Context) (uint64, error) { return i.p.BucketBehind(ctx) }

// Leader is [Publisher.Leader].
func (i *Inspector) Leader(ctx context.Context) (string, error) { return i.p.Leader(ctx) }
