unpack("view").then(start).then(() => version() && follow()).catch((error) => {
  byId("summary").textContent = `This page could not be drawn (${error.message}). It needs a browser of 2023 or later; the tables are in the file all the same.`;
  throw error;
});
