package main

import (
	"errors"

	"github.com/spf13/cobra"

	"nimble-bridge/publisher/event/schema"
)

func (p *program) schemaCommand() *cobra.Command {
	var typ, dataschema string
	var asyncapi bool
	cmd := &cobra.Command{
		Use:   "schema",
		Short: "Print the JSON Schema of the events, or the AsyncAPI document",
		Long: `schema prints the JSON Schema (draft 2020-12) that every event on NATS satisfies. With
--type it is about events of one type only, with --dataschema about what events carry as
data. --asyncapi prints the AsyncAPI 3.0 document: subjects, messages, headers and schemas.`,
		Example: `  nimble-bridge schema > event.schema.json
  nimble-bridge schema --type updated
  nimble-bridge schema --asyncapi > asyncapi.json`,
		Args: noArguments,
		RunE: func(*cobra.Command, []string) error {
			doc, err := schema.Event(), error(nil)
			switch {
			case asyncapi && (typ != "" || dataschema != ""), typ != "" && dataschema != "":
				err = errors.New("--asyncapi, --type and --dataschema exclude each other")
			case asyncapi:
				doc = schema.AsyncAPI()
			case typ != "":
				doc, err = schema.Type(typ)
			case dataschema != "":
				doc, err = schema.Data(dataschema)
			}
			if err != nil {
				return &usageError{err}
			}
			_, err = p.stdout.Write(doc)
			return err
		},
	}
	flags := cmd.Flags()
	flags.BoolVar(&asyncapi, "asyncapi", false, "print the AsyncAPI 3.0 document")
	flags.StringVar(&typ, "type", "", "events of this type only, such as updated or com.nimble.bridge.reconciled")
	flags.StringVar(&dataschema, "dataschema", "", "the data of events with this dataschema, such as urn:nimble-bridge:contact-event:1")
	return cmd
}
