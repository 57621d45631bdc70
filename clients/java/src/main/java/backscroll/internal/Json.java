package backscroll.internal;

import backscroll.Update;
import backscroll.requests.Limits;
import com.fasterxml.jackson.annotation.JsonInclude;
import com.fasterxml.jackson.core.JsonFactory;
import com.fasterxml.jackson.core.JsonGenerator;
import com.fasterxml.jackson.core.JsonParser;
import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.core.JsonToken;
import com.fasterxml.jackson.core.StreamReadConstraints;
import com.fasterxml.jackson.core.json.JsonWriteFeature;
import com.fasterxml.jackson.databind.BeanProperty;
import com.fasterxml.jackson.databind.DeserializationContext;
import com.fasterxml.jackson.databind.DeserializationFeature;
import com.fasterxml.jackson.databind.JavaType;
import com.fasterxml.jackson.databind.JsonDeserializer;
import com.fasterxml.jackson.databind.JsonMappingException;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.JsonSerializer;
import com.fasterxml.jackson.databind.MapperFeature;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.ObjectWriter;
import com.fasterxml.jackson.databind.SerializerProvider;
import com.fasterxml.jackson.databind.cfg.CoercionAction;
import com.fasterxml.jackson.databind.cfg.CoercionInputShape;
import com.fasterxml.jackson.databind.deser.ContextualDeserializer;
import com.fasterxml.jackson.databind.json.JsonMapper;
import com.fasterxml.jackson.databind.module.SimpleModule;
import com.fasterxml.jackson.databind.type.LogicalType;
import java.io.IOException;
import java.time.Instant;

/** JSON as the protocol has it: strict where Jackson would convert one type into another. */
public final class Json {
  private static final ObjectMapper MAPPER = mapper();
  private static final ObjectWriter REQUESTS = MAPPER.writerWithView(Requests.class);

  private Json() {}

  /** The view of what requests contain. */
  private interface Requests {}

  /**
   * A value as part of a request.
   *
   * @param value the value
   * @return its JSON in UTF-8
   * @throws JsonProcessingException if JSON has no form for it
   */
  public static byte[] writeRequest(Object value) throws JsonProcessingException {
    return REQUESTS.writeValueAsBytes(value);
  }

  /**
   * A text in quotation marks.
   *
   * @param text the text
   * @return its JSON
   */
  public static String quoted(String text) {
    try {
      return MAPPER.writeValueAsString(text);
    } catch (JsonProcessingException e) {
      throw new IllegalStateException(e); // a text always has a form
    }
  }

  /**
   * A parser of a body.
   *
   * @param body the body
   * @return the parser
   * @throws IOException if it cannot be read
   */
  public static JsonParser parser(byte[] body) throws IOException {
    return MAPPER.createParser(body);
  }

  /**
   * A body as a tree.
   *
   * @param body the body
   * @return the tree, which is a missing node if the body is empty
   * @throws IOException if it is not one value in JSON
   */
  public static JsonNode tree(byte[] body) throws IOException {
    return MAPPER.reader().with(DeserializationFeature.FAIL_ON_TRAILING_TOKENS).readTree(body);
  }

  /**
   * Read the value at which a parser is.
   *
   * @param parser the parser
   * @param type the type of the value
   * @return the value
   * @throws IOException if it has another type
   */
  public static Object read(JsonParser parser, JavaType type) throws IOException {
    return MAPPER.readValue(parser, type);
  }

  /**
   * A value of another form as this type.
   *
   * @param <T> the type
   * @param value a tree, a map or a record
   * @param type its class
   * @return the value
   * @throws IllegalArgumentException if it does not have this form
   */
  public static <T> T convert(Object value, Class<T> type) {
    return MAPPER.convertValue(value, type);
  }

  /**
   * A value of another form as this type.
   *
   * @param value a tree, a map or a record
   * @param type its type
   * @return the value
   * @throws IllegalArgumentException if it does not have this form
   */
  public static Object convert(Object value, JavaType type) {
    return MAPPER.convertValue(value, type);
  }

  /**
   * The type of lists of a class.
   *
   * @param type the class
   * @return the type
   */
  public static JavaType listOf(Class<?> type) {
    return MAPPER.getTypeFactory().constructCollectionType(java.util.List.class, type);
  }

  /**
   * The type of a class.
   *
   * @param type the class
   * @return the type
   */
  public static JavaType of(Class<?> type) {
    return MAPPER.constructType(type);
  }

  private static ObjectMapper mapper() {
    JsonMapper mapper =
        JsonMapper.builder(JsonFactory.builder().streamReadConstraints(constraints()).build())
            .enable(JsonWriteFeature.COMBINE_UNICODE_SURROGATES_IN_UTF8) // not as two escapes
            .disable(MapperFeature.ALLOW_COERCION_OF_SCALARS)
            .enable(MapperFeature.DEFAULT_VIEW_INCLUSION)
            .disable(DeserializationFeature.ACCEPT_FLOAT_AS_INT)
            .enable(DeserializationFeature.FAIL_ON_NULL_FOR_PRIMITIVES)
            .defaultPropertyInclusion(
                JsonInclude.Value.construct(
                    JsonInclude.Include.NON_NULL, JsonInclude.Include.ALWAYS))
            .addModule(protocol())
            .build();
    for (CoercionInputShape shape :
        new CoercionInputShape[] {
          CoercionInputShape.Integer, CoercionInputShape.Float, CoercionInputShape.Boolean
        }) {
      mapper.coercionConfigFor(LogicalType.Textual).setCoercion(shape, CoercionAction.Fail);
    }
    return mapper;
  }

  /**
   * Names in free JSON are as long as the daemon allows; its replies are bounded by their frame.
   */
  private static StreamReadConstraints constraints() {
    return StreamReadConstraints.builder().maxNameLength(Limits.FRAME_BYTES).build();
  }

  private static SimpleModule protocol() {
    SimpleModule module = new SimpleModule("backscroll");
    module.addSerializer(Instant.class, new InstantWriter());
    module.addDeserializer(Instant.class, new InstantReader());
    module.addSerializer(new UpdateWriter());
    module.addDeserializer(Update.class, new UpdateReader(null));
    module.addSerializer(Double.class, new NumberWriter<Double>());
    module.addSerializer(Double.TYPE, new NumberWriter<Double>());
    module.addSerializer(Float.class, new NumberWriter<Float>());
    return module;
  }

  /** A time is the number of its milliseconds since 1970. */
  private static final class InstantWriter extends JsonSerializer<Instant> {
    @Override
    public void serialize(Instant time, JsonGenerator generator, SerializerProvider provider)
        throws IOException {
      generator.writeNumber(time.toEpochMilli());
    }
  }

  private static final class InstantReader extends JsonDeserializer<Instant> {
    @Override
    public Instant deserialize(JsonParser parser, DeserializationContext context)
        throws IOException {
      if (!parser.hasToken(JsonToken.VALUE_NUMBER_INT)) {
        return (Instant) context.handleUnexpectedToken(Instant.class, parser);
      }
      return Instant.ofEpochMilli(parser.getLongValue());
    }
  }

  /** What is to be cleared is null; what stays is left out, because it is "empty". */
  private static final class UpdateWriter extends JsonSerializer<Update<?>> {
    @Override
    @SuppressWarnings("unchecked")
    public Class<Update<?>> handledType() {
      return (Class<Update<?>>) (Class<?>) Update.class;
    }

    @Override
    public boolean isEmpty(SerializerProvider provider, Update<?> update) {
      return update instanceof Update.Keep<?>;
    }

    @Override
    public void serialize(Update<?> update, JsonGenerator generator, SerializerProvider provider)
        throws IOException {
      if (update instanceof Update.Set<?> set) {
        provider.defaultSerializeValue(set.value(), generator);
      } else {
        generator.writeNull();
      }
    }
  }

  private static final class UpdateReader extends JsonDeserializer<Update<?>>
      implements ContextualDeserializer {
    private final JavaType type;

    UpdateReader(JavaType type) {
      this.type = type;
    }

    @Override
    public JsonDeserializer<?> createContextual(
        DeserializationContext context, BeanProperty property) {
      return new UpdateReader(context.getContextualType().containedType(0));
    }

    @Override
    public Update<?> deserialize(JsonParser parser, DeserializationContext context)
        throws IOException {
      return Update.set(context.readValue(parser, type));
    }

    @Override
    public Update<?> getNullValue(DeserializationContext context) {
      return Update.clear();
    }

    @Override
    public Object getAbsentValue(DeserializationContext context) {
      return Update.keep();
    }
  }

  /** JSON has no form for NaN and the infinities; Jackson would write them as text. */
  private static final class NumberWriter<T extends Number> extends JsonSerializer<T> {
    @Override
    public void serialize(T number, JsonGenerator generator, SerializerProvider provider)
        throws IOException {
      if (!Double.isFinite(number.doubleValue())) {
        throw JsonMappingException.from(generator, number + " is no number in JSON");
      }
      if (number instanceof Float) {
        generator.writeNumber(number.floatValue());
      } else {
        generator.writeNumber(number.doubleValue());
      }
    }
  }
}
