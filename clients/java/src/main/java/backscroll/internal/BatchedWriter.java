package backscroll.internal;

import backscroll.BatchCommand;
import com.fasterxml.jackson.core.JsonGenerator;
import com.fasterxml.jackson.databind.JsonSerializer;
import com.fasterxml.jackson.databind.SerializerProvider;
import java.io.IOException;

/** A command inside a batch has its type beside its payload. */
public final class BatchedWriter extends JsonSerializer<BatchCommand<?>> {
  /** Used by Jackson. */
  public BatchedWriter() {}

  @Override
  public void serialize(
      BatchCommand<?> command, JsonGenerator generator, SerializerProvider provider)
      throws IOException {
    generator.writeStartObject();
    generator.writeStringField("type", command.operation());
    generator.writeFieldName("payload");
    provider.defaultSerializeValue(command, generator);
    generator.writeEndObject();
  }
}
